"""Receipts, forms and tables: short lines in fields, separated by blanks, rules and boxes."""

from __future__ import annotations

import itertools

import numpy as np

from scripts.train.books import dark_ink, write_prose
from scripts.train.fonts import FontShelf
from scripts.train.sheet import Sheet
from scripts.train.texts import Texts


class Receipt:
    """A receipt being printed: a centred head, items with amounts at the right, totals, dashes.

    Args:
        rng: of the look and of the contents.
        texts: what to print.
        shelf: fonts.
    """

    def __init__(self, rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> None:
        self.rng, self.texts = rng, texts
        self.sheet = Sheet(int(rng.integers(480, 900)), int(rng.integers(950, 1500)))
        self.face = shelf.pick(("receipt", "receipt", "typewriter", "sans")[rng.integers(4)], rng)
        self.ink = dark_ink(rng)
        width = self.sheet.width
        self.size = int(width / rng.uniform(22, 42))
        self.left, self.right = rng.uniform(0.03, 0.16) * width, rng.uniform(0.88, 0.97) * width
        inner = self.right - self.left
        self.columns = np.cumsum(rng.uniform(0.12, 0.3, 3)) * inner + self.left + 0.15 * inner

    def fill(self) -> Sheet:
        """Print all rows and return the sheet."""
        rng, size = self.rng, self.size
        pitch, y = size * rng.uniform(1.02, 1.7), rng.uniform(0.02, 0.1) * self.sheet.height
        for row in range(rng.integers(2, 8)):
            big = int(size * rng.uniform(1.2, 1.8)) if row == 0 else size
            self._centred(y, self.texts.phrase(rng, 1, 4) if rng.random() < 0.6 else self.texts.number(rng), big)
            y += pitch * big / size
        rows = (self._separator, self._remark, self._field, self._amounts, self._total, self._item)
        while y < self.sheet.height * 0.92:
            row_kind = rows[rng.choice(len(rows), p=[0.1, 0.15, 0.2, 0.1, 0.1, 0.35])]
            y += pitch * row_kind(y)
        return self.sheet

    def _centred(self, y: float, text: str, size: int) -> None:
        x = (self.left + self.right - self.sheet.text_width(text, self.face, size)) / 2
        self.sheet.write(max(x, self.left), y, text, self.face, size, self.ink)

    def _flush_right(self, y: float, text: str, edge: float, size: int) -> None:
        self.sheet.write(edge, y, text, self.face, size, self.ink, align=1)

    # Each of these prints one row at y and returns how many line pitches it took.

    def _separator(self, y: float) -> float:
        """A rule of dashes, dots or one stroke; none of them is text."""
        y += self.size * 0.4
        dash, gap = ((1.0, 0.0), (6.0, 4.0), (2.0, 3.0))[self.rng.integers(3)]
        if not gap:
            self.sheet.rule(self.left, y, self.right, y, int(self.rng.integers(1, 3)), self.ink)
            return 1.0
        for x in np.arange(self.left, self.right, dash + gap).tolist():
            self.sheet.rule(x, y, min(x + dash, self.right), y, 1, self.ink)
        return 1.0

    def _remark(self, y: float) -> float:
        self._centred(y, self.texts.phrase(self.rng, 2, 5), self.size)
        return 1.0

    def _field(self, y: float) -> float:
        text = self.texts.label(self.rng)
        end = self.sheet.write(self.left, y, text, self.face, self.size, self.ink)
        value = self.texts.number(self.rng) if self.rng.random() < 0.7 else self.texts.phrase(self.rng, 1, 2)
        x = max(float(self.columns[0]), end + 1.5 * self.size)
        self.sheet.write(x, y, value, self.face, self.size, self.ink)
        return 1.0

    def _amounts(self, y: float) -> float:
        for edge in self.columns[self.columns < self.right].tolist():
            self._flush_right(y, self.texts.amount(self.rng), edge, self.size)
        return 1.0

    def _total(self, y: float) -> float:
        big = int(self.size * self.rng.uniform(1.1, 1.7))
        self.sheet.write(self.left, y, self.texts.label(self.rng).upper(), self.face, big, self.ink)
        self._flush_right(y, self.texts.amount(self.rng), self.right, big)
        return 1.5

    def _item(self, y: float) -> float:
        x = self.left + self.size * float(self.rng.integers(0, 3))
        end = self.sheet.write(x, y, self.texts.phrase(self.rng, 1, 3), self.face, self.size, self.ink)
        amount = self.texts.amount(self.rng)
        if end + self.sheet.text_width(amount, self.face, self.size) + self.size < self.right:
            self._flush_right(y, amount, self.right, self.size)
        return 1.0


def receipt(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a receipt."""
    return Receipt(rng, texts, shelf).fill()


class Form:
    """A form being filled in: one look for all of its fields.

    Args:
        rng: of the look and of the contents.
        texts: what to fill in.
        shelf: fonts.
    """

    def __init__(self, rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> None:
        self.rng, self.texts = rng, texts
        self.sheet = Sheet(int(rng.integers(740, 950)), int(rng.integers(950, 1250)))
        self.print_face, self.ink = shelf.pick(("sans", "serif")[rng.integers(2)], rng), dark_ink(rng)
        self.value_face = shelf.pick(("hand", "typewriter", "sans")[rng.integers(3)], rng)
        self.value_ink = self.ink if rng.random() < 0.5 else (30, 40, int(rng.integers(80, 200)))
        self.size = int(rng.integers(10, 20))
        self.boxed = bool(rng.random() < 0.6)

    def fill(self) -> Sheet:
        """Write all rows and return the sheet."""
        sheet, rng, size = self.sheet, self.rng, self.size
        left, right, y = 0.06 * sheet.width, 0.94 * sheet.width, 0.04 * sheet.height
        title = self.texts.phrase(rng, 2, 5).upper()
        sheet.write(rng.uniform(left, 0.4 * sheet.width), y, title, self.print_face, int(size * 1.7), self.ink)
        y += size * 3
        while y < sheet.height * 0.9:
            cuts = rng.uniform(left + 80, right - 80, int(rng.integers(0, 4)))
            edges = [left, *sorted(cuts.tolist()), right]
            row = size * rng.uniform(1.6, 3.4)
            for x0, x1 in itertools.pairwise(edges):
                if x1 - x0 > 5 * size:
                    self._field(x0, y, x1, y + row)
            y += row
            if rng.random() < 0.12:
                y += size * rng.uniform(0.5, 2)
                text = " ".join(self.texts.prose(rng, int(rng.integers(3, 12))))
                sheet.write(left, y, text, self.print_face, size, self.ink)
                y += size * 1.6
        return sheet

    def _field(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Write one field: its box or underline, label, value; or check boxes."""
        sheet, rng, size = self.sheet, self.rng, self.size
        if self.boxed:
            sheet.box(x0, y0, x1, y1, 1, self.ink)
        x, y = x0 + 0.4 * size, y0 + 0.25 * size
        draw = rng.random()
        if draw < 0.2:
            self._check_boxes(x, y, x1)
            return
        if draw < 0.27:  # an entry of a list, or nothing but a mark
            text = self.texts.token(rng) + (" " + self.texts.phrase(rng, 1, 3) if rng.random() < 0.4 else "")
            self._write_within(x + rng.uniform(0, 2) * size, y, x1, text)
            return
        end = self._write_within(x, y, x1, self.texts.label(rng))
        below = y1 - y0 > 2.6 * size
        x, y = (x, y + 1.25 * size) if below else (end + 1.3 * size, y)
        value = (self.texts.number(rng), self.texts.phrase(rng, 1, 3), self.texts.token(rng))[
            rng.choice(3, p=[0.4, 0.45, 0.15])
        ]
        big = int(size * rng.uniform(0.9, 1.3))
        if rng.random() < 0.7 and x + sheet.text_width(value, self.value_face, big) < x1:
            sheet.write(x, y, value, self.value_face, big, self.value_ink)
        if not self.boxed:
            sheet.rule(x, y + 1.1 * size, x1 - size, y + 1.1 * size, 1, self.ink)

    def _check_boxes(self, x: float, y: float, x1: float) -> None:
        """Draw boxes or blanks with a word after each, some of them marked."""
        sheet, rng, size = self.sheet, self.rng, self.size
        boxed, marked = rng.random() < 0.7, rng.uniform(0, 0.7)
        for _ in range(rng.integers(1, 5)):
            if x + 6 * size > x1:
                return
            if boxed:
                sheet.box(x, y, x + 1.2 * size, y + 1.2 * size, 1, self.ink)
            else:
                sheet.rule(x, y + 1.15 * size, x + 1.4 * size, y + 1.15 * size, 1, self.ink)
            if rng.random() < marked:
                mark = ("X", "x", "X", "V")[rng.integers(4)]
                sheet.write(x + 0.25 * size, y + 0.05 * size, mark, self.value_face, size, self.value_ink)
            x = self._write_within(x + 1.8 * size, y, x1, self.texts.phrase(rng, 1, 2)) + 1.5 * size

    def _write_within(self, x: float, y: float, x1: float, text: str) -> float:
        """Write as many of the text's words as end before x1; return where they end."""
        words = text.split(" ")
        while words and x + self.sheet.text_width(" ".join(words), self.print_face, self.size) > x1:
            words.pop()
        return self.sheet.write(x, y, " ".join(words), self.print_face, self.size, self.ink) if words else x


def form(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a filled-in form: boxes or underlines with printed labels, typed or handwritten values, check boxes."""
    return Form(rng, texts, shelf).fill()


def table(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a page with tables of numbers and words, ruled or not, between lines of prose."""
    width, height = int(rng.integers(740, 1000)), int(rng.integers(850, 1250))
    sheet = Sheet(width, height)
    face, ink = shelf.pick(("sans", "serif", "typewriter")[rng.integers(3)], rng), dark_ink(rng)
    size = int(rng.integers(10, 19))
    left, right, y = 0.07 * width, 0.93 * width, 0.05 * height
    while y < height * 0.9:
        count = int(rng.integers(0, 4))
        y = write_prose(sheet, rng, texts, count, (left, y, right), face, size, size * 1.5, ink)
        columns = int(rng.integers(2, 8))
        edges = np.linspace(left, right, columns + 1) + np.array([0, *rng.normal(0, 6, columns - 1), 0])
        row = size * rng.uniform(1.3, 2.3)
        ruled, at_right = rng.random() < 0.5, rng.random(columns) < 0.5
        short = (texts.amount, texts.amount, texts.token)[rng.integers(3)]
        for number in range(rng.integers(3, 16)):
            if y + row > height * 0.95:
                break
            if ruled or number in (0, 1):
                sheet.rule(left, y - 0.15 * size, right, y - 0.15 * size, 1, ink)
            for x0, x1, flush in zip(edges, edges[1:], at_right, strict=False):
                if ruled:
                    sheet.rule(x1, y - 0.15 * size, x1, y + row - 0.15 * size, 1, ink)
                text = texts.phrase(rng, 1, 1) if number == 0 or not flush else short(rng)
                room = x1 - x0 - 1.2 * size
                if sheet.text_width(text, face, size) > room or rng.random() < 0.1:
                    continue
                x = x1 - 0.5 * size - sheet.text_width(text, face, size) if flush else x0 + 0.5 * size
                sheet.write(float(x), y, text, face, size, ink)
            y += row
        y += size * rng.uniform(1, 3)
    return sheet
