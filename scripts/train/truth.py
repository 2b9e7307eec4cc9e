"""Pages with their text lines: reading and writing picture folders with ICDAR-style truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.errors import UsageError

IGNORED = "###"  # the text of an instance that is neither text to find nor background


@dataclass(frozen=True)
class Line:
    """One text line.

    Attributes:
        polygon: outline, float32, shape (K, 2), K >= 3, (x, y) in image pixels, not closed.
        text: its text, or `IGNORED`.
    """

    polygon: npt.NDArray[np.float32]
    text: str = ""

    @property
    def ignored(self) -> bool:
        """Whether training leaves this region out."""
        return self.text == IGNORED


Page: TypeAlias = tuple[npt.NDArray[np.uint8], list[Line]]  # a picture, (H, W, 3) BGR, and its lines
PageWithMistakes: TypeAlias = tuple[npt.NDArray[np.uint8], list[Line], list[Line]]  # and what a model got wrong there


def rectangle(left: float, top: float, right: float, bottom: float) -> npt.NDArray[np.float32]:
    """Return the outline of an upright box, float32 (4, 2), clockwise from the top left."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def move_lines(lines: Sequence[Line], matrix: cv2.typing.MatLike) -> list[Line]:
    """Return the lines where a homography (3, 3) takes them."""
    return [Line(cv2.perspectiveTransform(line.polygon[None], matrix)[0], line.text) for line in lines]


def read_lines(path: Path) -> list[Line]:
    """Read a `gt_*.txt`: `x1,y1,...,xn,yn,text` a line, the last field always text.

    Raises:
        UsageError: a line holds no polygon.
    """
    lines = []
    for number, row in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not row.strip():
            continue
        *numbers, text = row.split(",")
        try:
            polygon = np.array(numbers, np.float32).reshape(-1, 2)
        except ValueError:
            raise UsageError("not x1,y1,...,xn,yn,text", where=f"{path}, line {number}") from None
        if len(polygon) >= 3:
            lines.append(Line(polygon, text.strip()))
    return lines


def write_lines(path: Path, lines: list[Line]) -> None:
    """Write a `gt_*.txt`; commas in texts become spaces, since the format has no escape."""
    rows = [
        ",".join([*(f"{v:.1f}" for v in line.polygon.ravel()), line.text.replace(",", " ") or "text"]) for line in lines
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class PageFile:
    """A picture and its truth, not read yet."""

    image: Path
    truth: Path

    @property
    def mistakes(self) -> Path:
        """Where `scripts.train.mistakes` writes, a file like `truth`."""
        return self.truth.parent.parent / "mistakes" / self.truth.name


def list_pages(folder: Path) -> list[PageFile]:
    """Return the pages of a folder that holds `images/` and `gts/`, by name; pictures without truth are left out."""
    pages = []
    for image in sorted((folder / "images").glob("*")):
        truth = folder / "gts" / f"gt_{image.stem}.txt"
        if truth.exists():
            pages.append(PageFile(image, truth))
    return pages


def read_page(page: PageFile, max_short_side: int) -> Page:
    """Return the picture, uint8 (H, W, 3) BGR, and its lines, both reduced to `max_short_side` where larger."""
    image, lines, _ = read_page_and_mistakes(page, max_short_side)
    return image, lines


def read_page_and_mistakes(page: PageFile, max_short_side: int) -> PageWithMistakes:
    """Return what `read_page` does, and what a model got wrong on the page, if that was written."""
    image = cv2.imread(str(page.image), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UsageError("cannot read the picture", where=page.image)
    lines = read_lines(page.truth)
    mistakes = read_lines(page.mistakes) if page.mistakes.exists() else []
    ratio = max_short_side / min(image.shape[:2])
    if ratio < 1:
        image = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        lines, mistakes = (
            [Line(line.polygon * np.float32(ratio), line.text) for line in outlines] for outlines in (lines, mistakes)
        )
    return image.astype(np.uint8, copy=False), lines, mistakes
