"""Ground truth and detections of whole sets of pages, as files hold them."""

from __future__ import annotations

import glob
import json
import logging
import math
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dbcpu.errors import ImageError, TruthError
from dbcpu.files import PICTURE_ENDINGS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

logger = logging.getLogger(__name__)

IGNORED = "###"  # the text of an instance that detections may find or miss
MIN_POINTS = 3
QUAD_NUMBERS = 8
LARGEST_COORDINATE = 1e9  # pixels; no picture has as many, and areas stay exact
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LINE_END = re.compile(r"\r\n|\r|\n")  # no others: texts may hold what Unicode takes for one
# 12,345,678 and 1,234,567,890, to the end of the line but for decimals and a currency: longer ones are points.
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(,\d{3}){2,3}(\.\d*)?\s*[^\d,]{0,3}\s*", re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthInstance:
    """One text region of the ground truth.

    Attributes:
        polygon: float64 (K, 2), K >= 3, (x, y) in pixels of the picture as it is stored, EXIF ignored.
        ignored: whether detections may find or miss it.
    """

    polygon: npt.NDArray[np.float64]
    ignored: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One region that a detector found.

    Attributes:
        polygon: floating point (K, 2), K >= 3, in the frame of the truth.
        score: None where the file has none.
    """

    polygon: npt.NDArray[np.floating[Any]]
    score: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthSet:
    """Pages with their ground truth.

    Attributes:
        name: of the folder that holds them.
        pages: the instances of each page by its stem, that of `gt_<stem>.txt`, sorted.
        images: where the pictures are: `<stem>.jpg` and so on.
    """

    name: str
    pages: Mapping[str, tuple[TruthInstance, ...]]
    images: Path

    def picture(self, stem: str) -> Path:
        """Return the picture of a page.

        Raises:
            ImageError: there is none, or more than one.
        """
        of_page = (path for path in self.images.glob(f"{glob.escape(stem)}.*") if path.stem == stem)
        paths = sorted(path for path in of_page if path.suffix.lower() in PICTURE_ENDINGS)
        if len(paths) != 1:
            what = f"several pictures of one page: {', '.join(p.name for p in paths)}" if paths else "no such picture"
            raise ImageError(what, where=self.images / (stem if paths else f"{stem}.*"))
        return paths[0]


class _Row(NamedTuple):
    """One line of a file, split at its commas, and the place of it for messages."""

    fields: list[str]
    where: str

    @property
    def leading_numbers(self) -> int:
        """How many fields before the last one are numbers, up to the first that is not."""
        others = (index for index, field in enumerate(self.fields[:-1]) if not _NUMBER.fullmatch(field))
        return next(others, len(self.fields) - 1)

    @property
    def most_coordinates(self) -> int:
        """How many fields are coordinates at most, so that a text is left."""
        return self.leading_numbers // 2 * 2

    @property
    def may_be_thousands(self) -> bool:
        """Whether what follows four points may be one number as well as further points and a text."""
        return self.most_coordinates > QUAD_NUMBERS and bool(_THOUSANDS.fullmatch(",".join(self.fields[QUAD_NUMBERS:])))


def read_truth(folder: Path) -> TruthSet:
    """Read the ground truth of a set of pages: one `gt_<stem>.txt` each, of lines `x1,y1,...,xn,yn,text`.

    The last field is text, whatever it looks like: `...,x4,y4,14` is a quad that reads "14". Texts may hold commas: as
    many leading numbers are coordinates as make whole points and leave a text, so `...,x4,y4,1,234` reads "1,234".

    A number of three or four groups after four points stays ambiguous: `12,345,678` to the end of the line, but for a
    currency, may also be a fifth point and the text "678". Such lines, and no others, go by the rest of the set: they
    are quads where most other lines have four points, as in ICDAR 2015, and where there are no others. A number of more
    groups, or with more behind it, is always read as further points and a text.

    Args:
        folder: holds the files, or `gts/` with the files and `images/` with the pictures. UTF-8, with or without a
            byte order mark; blank lines are skipped, and an empty file is a page without text.

    Raises:
        TruthError: no such files, or one that cannot be read, or a line of another form.
    """
    holder = folder / "gts" if (folder / "gts").is_dir() else folder
    home = folder / ".." if folder.resolve().name == "gts" else folder
    paths = sorted(holder.glob("gt_*.txt"), key=lambda path: path.stem)
    if not paths:
        what = "no gt_*.txt in it, nor in a folder gts/ of it" if folder.is_dir() else "no such folder"
        raise TruthError(what, where=folder)
    rows = {path.stem.removeprefix("gt_"): _read_rows(path) for path in paths}
    thousands_limit = _thousands_limit([row for page in rows.values() for row in page], folder)
    return TruthSet(
        name=home.resolve().name,
        pages={stem: tuple(_truth_instance(row, thousands_limit) for row in page) for stem, page in rows.items()},
        images=home / "images",
    )


def _thousands_limit(rows: Sequence[_Row], folder: Path) -> int:
    """Return how many coordinates lines that may end in thousands have: those of a quad, or as many as they can."""
    sure = [row.most_coordinates for row in rows if not row.may_be_thousands]
    longer, quads = sum(count > QUAD_NUMBERS for count in sure), sure.count(QUAD_NUMBERS)
    if longer and all(len(row.fields) % 2 == 0 and all(map(_NUMBER.fullmatch, row.fields)) for row in rows):
        raise TruthError("no line has a text after its points", where=folder, remedy="the last field is the text")
    return QUAD_NUMBERS if quads > longer or not longer else sys.maxsize


def _truth_instance(row: _Row, thousands_limit: int) -> TruthInstance:
    count = min(row.most_coordinates, thousands_limit if row.may_be_thousands else sys.maxsize)
    # A triangle is believed only where no comma follows: `x1,y1,...,x4,y4` is a quad without its text.
    if count < 2 * MIN_POINTS or (count < QUAD_NUMBERS and count != len(row.fields) - 1):
        raise TruthError("not x1,y1,...,xn,yn,text with three points or more", where=row.where)
    text = ",".join(row.fields[count:]).strip()
    return TruthInstance(polygon=_polygon(_pairs(row.fields[:count]), row.where), ignored=text == IGNORED)


def read_detections(folder: Path, stems: Collection[str]) -> dict[str, tuple[Detection, ...]]:
    """Read what a detector found on the pages `stems`.

    Args:
        folder: holds `<stem>.json`, as `dbcpu detect -o` writes it, or `res_<stem>.txt` of lines `x1,y1,...,xn,yn` with
            or without a score at the end; where there are both, the former counts.
        stems: of the pages. One without a file has no detections; this, and files of other pages, are warned of.

    Raises:
        TruthError: no such files, or one that cannot be read.
    """
    results = {path.stem.removeprefix("res_"): path for path in sorted(folder.glob("res_*.txt"))}
    results |= {path.stem: path for path in sorted(folder.glob("*.json"))}
    if not results.keys() & set(stems):
        what = "no <stem>.json or res_<stem>.txt of any page in it" if folder.is_dir() else "no such folder"
        raise TruthError(what, where=folder)
    _warn(folder, "no detections of a page, counted as nothing found", [s for s in stems if s not in results])
    _warn(folder, "detections of a page without ground truth", sorted(results.keys() - set(stems)))
    return {stem: _read_result(results[stem]) if stem in results else () for stem in stems}


def _warn(folder: Path, what: str, stems: Sequence[str]) -> None:
    if stems:
        more = f" and {len(stems) - 3} more" if len(stems) > 3 else ""
        logger.warning("%s: %s: %s%s", folder, what, ", ".join(stems[:3]), more)


def _read_result(path: Path) -> tuple[Detection, ...]:
    if path.suffix == ".txt":
        return tuple(map(_detection, _read_rows(path)))
    try:
        instances = json.loads(_read_text(path))["instances"]
        return tuple(
            Detection(polygon=_polygon(instance["polygon"], path), score=_score(instance.get("score"), path))
            for instance in instances
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise TruthError("not a document that dbcpu detect writes", where=path) from None


def _detection(row: _Row) -> Detection:
    if not all(map(_NUMBER.fullmatch, row.fields)):
        raise TruthError("not x1,y1,...,xn,yn,score", where=row.where)
    *coordinates, last = row.fields
    if len(coordinates) % 2:
        return Detection(polygon=_polygon(_pairs(row.fields), row.where))
    return Detection(polygon=_polygon(_pairs(coordinates), row.where), score=_score(last, row.where))


def _pairs(coordinates: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(coordinates[::2], coordinates[1::2], strict=True))


def _polygon(points: Any, where: object) -> npt.NDArray[np.float64]:
    polygon = np.array(points, np.float64)
    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < MIN_POINTS or not np.isfinite(polygon).all():
        raise TruthError("not a polygon of three points or more", where=where)
    if np.abs(polygon).max() > LARGEST_COORDINATE:
        raise TruthError(f"a coordinate beyond {LARGEST_COORDINATE:.0e}, which no picture has", where=where)
    return polygon


def _score(value: Any, where: object) -> float | None:
    if value is not None and not math.isfinite(float(value)):
        raise TruthError("a score that is no number", where=where)
    return None if value is None else float(value)


def _read_rows(path: Path) -> list[_Row]:
    lines = enumerate(_LINE_END.split(_read_text(path)), 1)
    return [_Row(line.split(","), f"{path}, line {number}") for number, line in lines if line.strip()]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(_LINE_END.split(error.object[: error.start].decode()))
        raise TruthError("not UTF-8", where=f"{path}, line {line}", remedy="convert it") from None
    except OSError as error:
        raise TruthError(f"cannot be read: {error.strerror or error}", where=path) from None
