"""What the result files are called, so that no two pictures write the same one."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN = "-"
PathT = TypeVar("PathT", bound=PurePath)


def output_names(inputs: Sequence[str]) -> dict[str, Path]:
    """Return a relative path for the results of each input, without the ending of the format.

    `page.jpg` gives `page`. Where inputs share a stem, all of them keep their full name, `page.jpg`; so does one whose
    stem goes on where another's name ends, since results put things there as well: `page.p0002.jpg` beside `page.tif`.
    Where inputs even share the full name, their folders below the deepest common one go before it: `a/page.jpg`,
    `b/page.jpg`.

    Args:
        inputs: paths as the user gave them; `-` is stdin. The same file twice is one input.
    """
    paths = {given: Path("stdin") if given == STDIN else Path(os.path.abspath(given)) for given in inputs}  # noqa: PTH100
    distinct = set(paths.values())
    full = Counter(path.name for path in distinct)
    names = full + Counter(path.stem for path in distinct)
    clashing = [path for path in distinct if full[path.name] > 1]
    common = os.path.commonpath([path.parent for path in clashing]) if clashing else ""

    def name(path: Path) -> Path:
        if full[path.name] > 1:
            return path.relative_to(common)
        heads = itertools.accumulate(path.stem.split("."), "{}.{}".format)
        return Path(path.name if any(names[head] > (head == path.stem) for head in heads) else path.stem)

    return {given: name(path) for given, path in paths.items()}


def page_name(name: PathT, page: int, *, several: bool) -> PathT:
    """Return the name for one page: of several, each carries its number, `scan.p0003`."""
    return name.with_name(f"{name.name}.p{page:04d}") if several else name


def seen_from(result_file: Path, image: str) -> str:
    """Return the path of a picture for readers of a result file: relative to its folder.

    Args:
        result_file: its path.
        image: the path of the picture, or `-`, which stays.
    """
    if image == STDIN:
        return image
    picture = Path(image)
    try:
        # Resolved, since `..` leads out of the folder that a link points to; the picture keeps its name.
        return os.path.relpath(picture.parent.resolve() / picture.name, result_file.parent.resolve())
    except ValueError:  # on Windows, another drive
        return os.path.abspath(image)  # noqa: PTH100 - does not follow links
