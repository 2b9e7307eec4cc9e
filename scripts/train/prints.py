"""Pages of PDF documents that carry their text: real layouts, with formulas, figures, tables, references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pypdfium2
from PIL import Image
from pypdfium2 import raw

from dbcpu.errors import UsageError
from scripts.train.sheet import Sheet
from scripts.train.truth import Line, rectangle

Bounds: TypeAlias = tuple[float, float, float, float]  # as PDF has them: left, bottom, right, top, y upwards
Box = npt.NDArray[np.float32]  # (left, top, right, bottom) in pixels

SHORT_SIDES = (736, 1100)  # of a drawn page in pixels
MIN_LINES = 4  # covers and logos teach nothing
MIN_HEIGHT = 4.5  # pixels: the median of a page; where lines are lower, nobody could read them
SAME_LINE = 0.5  # of the lower one's height, shared by two pieces of one line
TRIES = 1000  # pages passed over before a folder is given up
GAP = 0.8  # of the higher one's height, between two pieces of one line


class Documents:
    """Draws pages of PDF files.

    Args:
        folder: searched for `*.pdf` at any depth.
        words: whether the truth is of words, see `draw_page`.

    Raises:
        UsageError: it holds none.
    """

    def __init__(self, folder: Path, *, words: bool = False) -> None:
        self._folder, self._paths, self._words = folder, sorted(folder.rglob("*.pdf")), words
        if not self._paths:
            raise UsageError("no *.pdf in the folder of documents", where=folder)

    def draw(self, rng: np.random.Generator) -> Sheet:
        """Return a page of a document, both drawn at random; a page that teaches nothing is passed over.

        Raises:
            UsageError: a thousand were passed over.
        """
        for _ in range(TRIES):
            try:
                document = pypdfium2.PdfDocument(self._paths[rng.integers(len(self._paths))])
                page = document[int(rng.integers(len(document)))]
            except pypdfium2.PdfiumError:
                continue  # encrypted or damaged
            sheet = draw_page(page, int(rng.integers(*SHORT_SIDES)), words=self._words)
            document.close()
            heights = [np.ptp(line.polygon[:, 1]) for line in sheet.lines if not line.ignored]
            if len(heights) >= MIN_LINES and np.median(heights) >= MIN_HEIGHT:
                return sheet
        raise UsageError(f"none of {TRIES} pages has lines of text that can be read", where=self._folder)


def draw_page(page: pypdfium2.PdfPage, short_side: int, *, words: bool = False) -> Sheet:
    """Return a page at `short_side` pixels with its lines; pictures, which may hold text, are left out of the loss.

    With `words`, those instead of lines, of the height of their font whatever their letters: what sets of words are
    made of, and coverage is measured on.
    """
    width, height = page.get_size()
    # A strip of a page, as of a poster's edge, is drawn no longer than four times its width.
    scale = min(short_side / min(width, height), 4 * short_side / max(width, height))
    drawn = page.render(scale=scale).to_pil().convert("RGB")
    sheet = Sheet(*drawn.size)
    sheet.ink.paste(drawn)
    text = page.get_textpage()
    pieces = list(_words(text)) if words else [text.get_rect(k) for k in range(text.count_rects())]
    boxes = np.array([_flip(piece, height) for piece in pieces], np.float32).reshape(-1, 4) * scale
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < drawn.size).all(axis=1)
    boxes = boxes[inside & (boxes[:, 2:] - boxes[:, :2] > 1).all(axis=1)]
    for box in boxes if words else join_pieces(boxes):
        if _has_ink(drawn, box):
            margin = 0.0 if words else 0.1 * (box[3] - box[1])
            sheet.lines.append(Line(rectangle(*(box + margin * np.array([-1, -1, 1, 1], np.float32))), "print"))
    for picture in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
        sheet.ignore(rectangle(*_flip(picture.get_bounds(), height)) * np.float32(scale))
    return sheet


def _words(text: pypdfium2.PdfTextPage) -> Iterator[Bounds]:
    """Yield the bounds of what stands between blanks; what is divided at the end of a line is two words."""
    word: list[Bounds] = []
    for k in range(text.count_chars()):
        blank = not text.get_text_range(k, 1).strip()
        bounds = text.get_charbox(k, loose=True)
        if word and (blank or bounds[0] < word[-1][0]):
            yield _around(word)
            word = []
        if not blank:
            word.append(bounds)
    if word:
        yield _around(word)


def _around(bounds: list[Bounds]) -> Bounds:
    lefts, bottoms, rights, tops = zip(*bounds, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def join_pieces(boxes: npt.NDArray[np.float32]) -> Iterator[Box]:
    """Yield the boxes of lines: pieces that stand beside each other, with no more than a wide space between, joined.

    Args:
        boxes: shape (N, 4), left, top, right, bottom.
    """
    waiting = list(boxes[np.argsort(boxes[:, 0], kind="stable")])
    while waiting:
        line = waiting.pop(0)
        k = 0
        while k < len(waiting):
            if _beside(line, waiting[k]):
                piece = waiting.pop(k)
                line = np.hstack([np.minimum(line[:2], piece[:2]), np.maximum(line[2:], piece[2:])])
                k = 0  # what was too far away may stand beside the longer line
            else:
                k += 1
        yield line


def _beside(a: Box, b: Box) -> bool:
    heights = a[3] - a[1], b[3] - b[1]
    shared = min(a[3], b[3]) - max(a[1], b[1])
    gap = max(a[0], b[0]) - min(a[2], b[2])
    return bool(shared >= SAME_LINE * min(heights) and gap <= GAP * max(heights))


def _flip(bounds: Bounds, height: float) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom, y downwards."""
    left, bottom, right, top = bounds
    return left, height - top, right, height - bottom


def _has_ink(drawn: Image.Image, box: Box) -> bool:
    """Whether something can be seen in the box: hidden and white text counts for nothing."""
    left, top, right, bottom = map(int, (*box[:2], *(box[2:] + 1)))
    return int(np.ptp(np.asarray(drawn.crop((left, top, right, bottom)).convert("L")))) > 40
