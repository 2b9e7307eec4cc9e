"""Pages with figures: charts with numbered axes, legends and captions, and drawings with labels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from scripts.train.books import dark_ink, write_prose
from scripts.train.fonts import Face, FontShelf
from scripts.train.sheet import Ink, Sheet
from scripts.train.texts import Texts


@dataclass
class Figure:
    """A figure to be drawn into `place` (x0, y0, x1, y1)."""

    sheet: Sheet
    place: tuple[float, float, float, float]
    face: Face
    size: int
    ink: Ink

    def chart(self, rng: np.random.Generator, texts: Texts) -> None:
        """Draw curves, bars or points that the numbers of two axes explain."""
        x0, y0, x1, y1 = self.place
        self.sheet.box(x0, y0, x1, y1, int(rng.integers(1, 3)), self.ink)
        self._data(rng)
        self._numbers(rng)
        if rng.random() < 0.8:
            self._label((x0 + x1) / 2, y1 + 1.9 * self.size, texts.phrase(rng, 1, 2))
        if rng.random() < 0.8:
            label = texts.phrase(rng, 1, 2)
            long = self.sheet.text_width(label, self.face, self.size)
            self.sheet.write_up(x0 - 5 * self.size, (y0 + y1 + long) / 2, label, self.face, self.size, self.ink)
        if rng.random() < 0.5:
            self._legend(rng, texts)

    def diagram(self, rng: np.random.Generator, texts: Texts) -> None:
        """Draw boxes and circles with short labels in them, joined by lines."""
        x0, y0, x1, y1 = self.place
        size, pen = self.size, self.sheet.pen
        columns, rows = max(int((x1 - x0) / size / 8), 1), max(int((y1 - y0) / size / 5), 1)
        centres = [
            (x0 + (column + rng.uniform(0.35, 0.65)) * (x1 - x0) / columns, y0 + (row + 0.5) * (y1 - y0) / rows)
            for column in range(columns)
            for row in range(rows)
            if rng.random() < 0.8
        ]
        for a, b in itertools.pairwise(centres):
            if rng.random() < 0.6:
                self.sheet.rule(*a, *b, 1, self.ink)
        for x, y in centres:
            label = texts.token(rng) if rng.random() < 0.6 else texts.phrase(rng, 1, 1)[:9]
            half = max(self.sheet.text_width(label, self.face, size) / 2 + 0.5 * size, size)
            draw = pen.ellipse if len(label) < 3 else pen.rectangle
            draw((x - half, y - size, x + half, y + size), fill=(255, 255, 255), outline=self.ink)
            self._label(x, y - 0.6 * size, label)

    def _label(self, x: float, y: float, text: str, align: float = 0.5) -> None:
        self.sheet.write(x, y, text, self.face, self.size, self.ink, align=align)

    def _data(self, rng: np.random.Generator) -> None:
        x0, y0, x1, y1 = self.place
        colours = rng.integers(0, 200, (3, 3)).tolist()
        for colour in colours[: rng.integers(1, 4)]:
            x = np.linspace(x0 + 3, x1 - 3, int(rng.integers(4, 40)))
            walk = np.cumsum(rng.normal(0, 1, len(x)))
            y = y1 - 5 - (y1 - y0 - 10) * (walk - walk.min()) / max(float(np.ptp(walk)), 1.0)
            kind = rng.integers(3)
            if kind == 0:
                points = list(zip(x.tolist(), y.tolist(), strict=True))
                self.sheet.pen.line(points, fill=tuple(colour), width=int(rng.integers(1, 4)))
                continue
            half = 2 if kind == 1 else (x1 - x0) / len(x) / 3
            for at, top in zip(x.tolist(), y.tolist(), strict=True):
                place = (at - half, top - half, at + half, top + half) if kind == 1 else (at - half, top, at + half, y1)
                self.sheet.pen.rectangle(place, fill=tuple(colour))

    def _numbers(self, rng: np.random.Generator) -> None:
        """Write the numbers of both axes, with ticks or a grid."""
        x0, y0, x1, y1 = self.place
        tick = 4 if rng.random() < 0.7 else None
        step, digits = 10.0 ** rng.integers(-2, 4) * (1, 2, 5)[rng.integers(3)], int(rng.integers(0, 3))
        for number, x in enumerate(np.linspace(x0, x1, int(rng.integers(3, 9))).tolist()):
            self.sheet.rule(x, y1, x, y1 - tick if tick else y0, 1, self.ink)
            text = f"{number * step:.{digits}f}" if step < 1 else f"{number * step:g}"
            self._label(x, y1 + 0.3 * self.size, text)
        start = int(rng.integers(-3, 2))
        for number, y in enumerate(np.linspace(y1, y0, int(rng.integers(3, 8))).tolist(), start):
            self.sheet.rule(x0, y, x0 + tick if tick else x1, y, 1, self.ink)
            text = f"{number * step:.{digits}f}"[:6]
            self._label(x0 - 0.4 * self.size, y - 0.6 * self.size, text, align=1)

    def _legend(self, rng: np.random.Generator, texts: Texts) -> None:
        names = [texts.phrase(rng, 1, 1)[:10] for _ in range(rng.integers(1, 4))]
        x0, y0, x1, _ = self.place
        long = max(self.sheet.text_width(name, self.face, self.size) for name in names)
        left, top = (x0 + self.size, x1 - long - 5 * self.size)[rng.integers(2)], y0 + 0.7 * self.size
        right, bottom = left + long + 4 * self.size, top + (1.3 * len(names) + 0.4) * self.size
        self.sheet.pen.rectangle((left, top, right, bottom), fill=(255, 255, 255), outline=self.ink)
        for row, name in enumerate(names):
            y = top + (1.3 * row + 0.2) * self.size
            self.sheet.rule(left + 5, y + 0.6 * self.size, left + 2.5 * self.size, y + 0.6 * self.size, 2, self.ink)
            self.sheet.write(left + 3 * self.size, y, name, self.face, self.size, self.ink)


def figure_page(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a page of charts and diagrams, with captions and lines of prose between them."""
    width, height = int(rng.integers(740, 1000)), int(rng.integers(950, 1300))
    sheet = Sheet(width, height)
    face, ink = shelf.pick(("serif", "sans", "sans")[rng.integers(3)], rng), dark_ink(rng)
    prose_face, size = shelf.pick("serif", rng), int(rng.integers(10, 18))
    left, right, y = 0.08 * width, 0.92 * width, 0.05 * height
    count = 0
    while y < height * 0.75:
        lines = int(rng.integers(0, 5))
        y = write_prose(sheet, rng, texts, lines, (left, y, right), prose_face, size, size * 1.4, ink)
        beside = int(rng.integers(1, 4))
        tall = min(rng.uniform(8, 20) * size, 0.93 * height - y - 6 * size)
        if tall < 5 * size:
            break
        small = max(int(size * rng.uniform(0.6, 1.0)), 8)
        step = (right - left) / beside
        for column in range(beside):
            x0 = left + column * step
            place = (x0 + 6 * small, y + small, x0 + step - small, y + tall)
            figure = Figure(sheet, place, face, small, ink)
            (figure.chart if rng.random() < 0.7 else figure.diagram)(rng, texts)
            if beside > 1:
                sheet.write(x0 + step / 2, y + tall + 3.6 * small, f"({'abc'[column]})", prose_face, size, ink)
        y += tall + 5.2 * small + size
        count += 1
        text = f"Figure {count}: " + " ".join(texts.prose(rng, int(rng.integers(3, 12))))
        sheet.write(left, y, text, prose_face, size, ink)
        y += size * rng.uniform(2, 4)
    return sheet
