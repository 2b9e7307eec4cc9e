"""Write real pictures of free packages as pages: those that `labelled.jsonl` names, with its lines.

    python -m scripts.train.labelled PACKAGES --out LABELLED

PACKAGES holds a folder for each package, unpacked. LABELLED receives `train/` and `held_back/`, each with `images/` and
`gts/`. A line of `labelled.jsonl` is a picture: its path, the size its polygons are for, to which it is reduced, the
lines to be seen in it, what is left out of the loss, and whether it is held back. Many have no line at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from dbcpu.errors import UsageError
from scripts.train.command import errors_told
from scripts.train.pages import write_page
from scripts.train.truth import IGNORED, Line

LABELS = Path(__file__).with_name("labelled.jsonl")
GROUND = (128, 128, 128, 255)  # behind what is transparent
QUALITY = 95  # of the JPEG files


def read_picture(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return a picture of a package, uint8 (H, W, 3) BGR, upright by its EXIF, at `size`, (width, height).

    Raises:
        UsageError: it is missing, cannot be read, or has other proportions.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", upright.size, GROUND), upright)
    except OSError as error:
        raise UsageError(f"cannot read the picture: {error}", where=path) from None
    if abs(picture.width * size[1] - picture.height * size[0]) > 2 * max(picture.size):
        raise UsageError(f"of {picture.width}x{picture.height}, the labels are for {size[0]}x{size[1]}", where=path)
    return np.ascontiguousarray(np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX))[..., ::-1])


def read_label(row: dict[str, Any]) -> list[Line]:
    """Return the lines of a picture, those to leave out last."""
    return [
        Line(np.array(polygon, np.float32).reshape(-1, 2), text)
        for key, text in (("lines", ""), ("ignored", IGNORED))
        for polygon in row[key]
    ]


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, made if missing")
    parser.add_argument("--labels", type=Path, default=LABELS, help="(default: those of the shipped model)")
    skip = "go on where a picture is not there, as of a package that cannot be had any more; each is named on stderr"
    parser.add_argument("--skip-missing", action="store_true", help=skip)
    write_pages(parser.parse_args())


def write_pages(arguments: argparse.Namespace) -> None:
    """Write the pages of all labels."""
    for number, text in enumerate(arguments.labels.read_text(encoding="utf-8").splitlines()):
        row = json.loads(text)
        path = arguments.packages / row["picture"]
        if arguments.skip_missing and not path.exists():
            print(f"skipped: {path} is missing", file=sys.stderr)
            continue
        folder = arguments.out / ("held_back" if row["held_back"] else "train")
        picture = read_picture(path, tuple(row["size"]))
        write_page(folder, f"{number:04}_{Path(row['picture']).stem}", picture, read_label(row), QUALITY)


if __name__ == "__main__":
    main()
