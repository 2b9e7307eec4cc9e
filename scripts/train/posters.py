"""Posters, shop fronts, pictures of goods as designers set them: few faces and colours, edges in common, clear text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from scripts.train.fonts import Face, FontShelf
from scripts.train.scenes import Colour, cut_view, make_advert, ramp
from scripts.train.sheet import Ink, Sheet
from scripts.train.signs import PANELS, colour_distance, readable_colour
from scripts.train.texts import Texts
from scripts.train.truth import Page
from scripts.train.wear import Picture

LATIN = ("sans", "sans", "sans", "sans", "display", "display", "serif", "hand")
HAN = ("cjk_print", "cjk_print", "cjk_display", "cjk_display", "cjk_brush")
SMALLEST = 9  # pixels per em
RESTLESS = 35  # standard deviation, of 255, of grounds that designers do not write on without a band


@dataclass(frozen=True)
class Design:
    """What all blocks of a poster have in common.

    Attributes:
        texts: where words come from.
        latin: face of Latin text.
        han: face of Chinese text; None on posters without any.
        left: edge of the text, in pixels, as are all that follow.
        right: edge of the text.
        align: where lines begin: 0 at the left, 0.5 in the middle, 1 at the right.
        size: of the characters of the headline.
    """

    texts: Texts
    latin: Face
    han: Face | None
    left: float
    right: float
    align: float
    size: int

    @property
    def width(self) -> float:
        """Of the text."""
        return self.right - self.left

    def rows(self, rng: np.random.Generator, count: int, size: int) -> tuple[Face, list[str]]:
        """Return a face and `count` lines of that size that fit the width, all Chinese or all Latin."""
        face = self.han if self.han and rng.random() < 0.7 else self.latin
        capitals, longest = rng.random() < 0.4, 1 + int(rng.integers(1, 6))

        def row() -> str:
            if face == self.han:
                return self.texts.slogan(rng, face)
            drawn = self.texts.number(rng) if rng.random() < 0.15 else " ".join(self.texts.prose(rng, longest))
            return self.texts.drawable(drawn.upper() if capitals else drawn, face)

        rows = [row() for _ in range(count)]
        return face, [_shorten(text, face, size, self.width) for text in rows]


def make_poster(
    rng: np.random.Generator,
    texts: Texts,
    shelf: FontShelf,
    photographs: Sequence[Path],
    height: int,
    width: int,
) -> Page:
    """Return a poster, uint8 (H, W, 3) BGR, and its lines: headline, small print, prices, emblem, watermark."""
    sheet = Sheet(width, height)
    _paste(sheet, _ground(rng, photographs, height, width))
    margin = rng.uniform(0.03, 0.12) * width
    left, right = margin, width - margin
    if rng.random() < 0.3:  # beside what is shown
        middle = rng.uniform(0.4, 0.6) * width
        left, right = (left, middle) if rng.random() < 0.5 else (middle, right)
    design = Design(
        texts,
        latin=shelf.pick(LATIN[rng.integers(len(LATIN))], rng),
        han=shelf.pick(HAN[rng.integers(len(HAN))], rng) if rng.random() < 0.55 else None,
        left=left,
        right=right,
        align=float(rng.choice([0, 0, 0.5, 0.5, 1])),
        size=int(np.clip(rng.uniform(0.07, 0.35) * min(height, 1.5 * (right - left)), 14, 160)),
    )
    top = rng.uniform(0.03, 0.25) * height
    while top < 0.95 * height:
        ratio = 1.0 if rng.random() < 0.4 else rng.uniform(0.2, 0.6)  # a headline or smaller print
        top = _write_block(rng, sheet, design, top, max(int(design.size * ratio), SMALLEST))
        if rng.random() < 0.08:
            break
        top += rng.uniform(0.3, 2) * design.size * (4 if rng.random() < 0.2 else 1)
    if rng.random() < 0.2:
        _draw_emblem(rng, sheet, design)
    if rng.random() < 0.2:
        _write_watermark(rng, sheet, design)
    return sheet.pixels(), sheet.lines


def _ground(rng: np.random.Generator, photographs: Sequence[Path], height: int, width: int) -> Picture:
    """Return what a poster is printed on: one colour, a colour that fades, things on it, a view."""
    draw = rng.random()
    if photographs and draw < 0.3:
        return make_advert(rng, photographs, height, width)
    if photographs and draw < 0.45:
        view = cut_view(rng, photographs[int(rng.integers(len(photographs)))], height, width)
        return np.asarray(view * np.float32(rng.uniform(0.4, 1)), np.float32)
    colour = PANELS[rng.integers(len(PANELS))] if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    fades = rng.normal(0, 40, 3) if rng.random() < 0.3 else np.zeros(3)
    return np.repeat(np.clip(colour + ramp(height) * fades, 0, 255), width, axis=1).astype(np.float32)


def _write_block(rng: np.random.Generator, sheet: Sheet, design: Design, top: float, size: int) -> float:
    """Write lines of one size from `top` on, as far as there is room, at times on a band; return where they end."""
    small = size < 0.7 * design.size
    face, rows = design.rows(rng, int(rng.integers(1, 7)) if small else int(rng.choice([1, 1, 2, 3])), size)
    leading = size * rng.uniform(1.15, 1.6)
    if rng.random() < 0.3:  # lines that nearly touch
        above, below = Sheet.ink_span(rows, face, size)
        leading = below - above + size * rng.uniform(0.03, 0.25)
    rows = rows[: max(int((sheet.height - top) / leading), 0)]
    end = top + leading * len(rows)
    if not any(row.strip() for row in rows):
        return end
    pixels = np.asarray(sheet.ink)[int(top) : int(end) + 1, int(design.left) : int(design.right)]
    ground = pixels.reshape(-1, 3)[:, ::-1].mean(axis=0).astype(np.float32)
    restless = pixels.std(axis=(0, 1)).max() > RESTLESS
    if rng.random() < (0.7 if restless else 0.15):
        band = _pick_colour(rng, ground, rng.uniform(30, 150))
        edge = 0.25 * size
        bleeds = rng.random() < 0.4
        x0, x1 = (0.0, float(sheet.width)) if bleeds else (design.left - edge, design.right + edge)
        sheet.pen.rectangle((x0, top - edge, x1, end + edge), fill=_ink(band))
        ground = band
    ink = _ink(_pick_colour(rng, ground, rng.uniform(90, 220)))
    x = design.left + design.align * design.width
    if not small and rng.random() < 0.15:
        figure, unit = design.texts.quantity(rng)
        unit = design.texts.drawable(unit, face)
        sheet.write_beside(
            design.left, top + size, [(figure, size), (unit, int(size * rng.uniform(0.4, 1)))], face, ink
        )
        return top + leading
    for number, row in enumerate(rows):
        if row.strip(" -·/：！一"):  # else a mark alone, or what stands for characters that the face lacks
            sheet.write(x, top + number * leading, row, face, size, ink, align=design.align)
    return end


def _write_watermark(rng: np.random.Generator, sheet: Sheet, design: Design) -> None:
    """Write a line that can be seen through, where no other is."""
    size = int(rng.uniform(0.05, 0.2) * sheet.height)
    face, (row,) = design.rows(rng, 1, size)
    top = rng.uniform(0, 0.8) * sheet.height
    if not _is_free(sheet, (design.left, top - 0.2 * size, design.right, top + 1.5 * size)):
        return
    without = sheet.ink.copy()
    ground = np.asarray(without, np.float32)[..., ::-1].mean(axis=(0, 1))
    sheet.write(design.left, top, row, face, size, _ink(_pick_colour(rng, ground, 120)))
    sheet.ink.paste(Image.blend(without, sheet.ink, rng.uniform(0.3, 0.7)))


def _draw_emblem(rng: np.random.Generator, sheet: Sheet, design: Design) -> None:
    """Draw a disc with a letter or two in a corner that has no text, if there is one."""
    radius = rng.uniform(0.05, 0.12) * min(sheet.width, sheet.height)
    x, y = ((side - 1.3 * radius, 1.3 * radius)[rng.integers(2)] for side in (sheet.width, sheet.height))
    box = (x - radius, y - radius, x + radius, y + radius)
    if not _is_free(sheet, box):
        return
    colour = PANELS[rng.integers(len(PANELS))]
    sheet.pen.ellipse(box, fill=_ink(colour))
    size = int(radius * rng.uniform(0.6, 1.1))
    letters = "".join(chr(ord("A") + rng.integers(26)) for _ in range(rng.integers(1, 3)))
    sheet.write(x, y - 0.6 * size, letters, design.latin, size, _ink(_pick_colour(rng, colour, 150)), align=0.5)


def _is_free(sheet: Sheet, box: tuple[float, float, float, float]) -> bool:
    """Whether no line reaches into a box of left, top, right and bottom."""
    left, top, right, bottom = box
    spans = [(*line.polygon.min(axis=0), *line.polygon.max(axis=0)) for line in sheet.lines]
    return not any(a < right and left < c and b < bottom and top < d for a, b, c, d in spans)


def _pick_colour(rng: np.random.Generator, ground: Colour, contrast: float) -> Colour:
    """Return a colour of panels where one is as far from the ground's as `contrast`, most often, or any that is."""
    for colour in rng.permutation(PANELS):
        if rng.random() < 0.9 and colour_distance(colour, ground) >= contrast:
            return np.asarray(colour, np.float32)
    return readable_colour(rng, ground, contrast)


def _shorten(text: str, face: Face, size: int, width: float) -> str:
    """Return as much of the text as fits: words of a line that has several, else characters."""
    while len(text) > 1 and Sheet.text_width(text, face, size) > width:
        text = text.rsplit(" ", 1)[0] if " " in text.strip() else text[: 3 * len(text) // 4]
    return text


def _ink(colour: Colour) -> Ink:
    blue, green, red = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue


def _paste(sheet: Sheet, picture: Picture) -> None:
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    sheet.ink.paste(Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)))
