"""Pages of running text: Latin columns, typescript, and Chinese and Japanese, horizontal and vertical."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from scripts.train.fonts import Face, FontShelf
from scripts.train.sheet import BLACK, Ink, Sheet
from scripts.train.texts import Texts
from scripts.train.truth import Line


def dark_ink(rng: np.random.Generator) -> Ink:
    """Return black, or at times another dark colour."""
    if rng.random() < 0.75:
        level = int(rng.integers(0, 80))
        return (level, level, level)
    colour = rng.integers(0, 120, 3)
    return (int(colour[0]), int(colour[1]), int(colour[2]))


def fill_column(
    sheet: Sheet,
    words: Sequence[str],
    place: tuple[float, float, float, float],
    face: Face,
    size: int,
    pitch: float,
    ink: Ink,
    rng: np.random.Generator,
    justified: bool,
) -> float:
    """Set words in lines into `place` (x0, y0, x1, y1) until either ends; return where the next line would be.

    Paragraphs indent and end early.
    """
    x0, y, x1, y1 = place
    pending = list(words)
    indent = rng.random() < 0.6
    first = True
    while pending and y + size < y1:
        start = x0 + (2 * size if first and indent else 0)
        row: list[str] = []
        while pending and sheet.text_width(" ".join([*row, pending[0]]), face, size) < x1 - start:
            row.append(pending.pop(0))
        if not row:
            pending.pop(0)
            continue
        text = " ".join(row)
        last = bool(text[-1] == "." and rng.random() < 0.5)
        slack = (x1 - start - sheet.text_width(text, face, size)) / max(len(text) - 1, 1)
        sheet.write(start, y, text, face, size, ink, slack if justified and not last and slack < 0.25 * size else 0.0)
        first = last
        y += pitch * (1.6 if last and not indent else 1.0)
    return y


def write_prose(
    sheet: Sheet,
    rng: np.random.Generator,
    texts: Texts,
    count: int,
    place: tuple[float, float, float],
    face: Face,
    size: int,
    pitch: float,
    ink: Ink,
) -> float:
    """Write lines of prose about as long as `place` (x0, y, x1) is wide; return where the next one would be."""
    left, y, right = place
    for _ in range(count):
        sheet.write(left, y, " ".join(texts.prose(rng, int((right - left) / size / 4))), face, size, ink)
        y += pitch
    return y


def latin_page(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a page of a book, a paper or a letter: one to three columns, headings, a page number."""
    width, height = int(rng.integers(700, 1000)), int(rng.integers(950, 1350))
    sheet = Sheet(width, height)
    family, ink = ("serif", "serif", "sans", "hand")[rng.integers(4)], dark_ink(rng)
    face = shelf.pick(family, rng)
    columns = int(rng.choice([1, 1, 2, 2, 3]))
    size = int(rng.integers(11, 30 if columns == 1 else 20 if columns == 2 else 16))
    if family == "hand":  # handwriting is small on its body
        size += 8
    pitch, margin, gutter = size * rng.uniform(1.05, 1.9), rng.uniform(0.05, 0.14) * width, rng.uniform(1.2, 2.5) * size
    y = rng.uniform(0.04, 0.1) * height
    if rng.random() < 0.7:
        heading = shelf.pick(("serif", "sans", "display")[rng.integers(3)], rng)
        for _ in range(rng.integers(1, 3)):
            big = int(size * rng.uniform(1.2, 2.6))
            text = texts.phrase(rng, 2, 6)
            x = max((width - sheet.text_width(text, heading, big)) / 2, margin) if rng.random() < 0.7 else margin
            sheet.write(x, y, text, heading, big, ink)
            y += big * 1.5
    bottom = height - rng.uniform(0.06, 0.15) * height
    column_width = (width - 2 * margin - (columns - 1) * gutter) / columns
    for column in range(columns):
        x = margin + column * (column_width + gutter)
        end = bottom if rng.random() < 0.7 else rng.uniform(y, bottom)
        words = texts.prose(rng, int(column_width * (end - y) / (size * pitch) / 2.5) + 5)
        fill_column(sheet, words, (x, y, x + column_width, end), face, size, pitch, ink, rng, bool(rng.random() < 0.5))
    if rng.random() < 0.6:
        sheet.write(width / 2 - size, height - 0.05 * height, str(rng.integers(1, 900)), face, size, ink)
    return sheet


def typescript(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a typewritten page: one wide-spaced column, uneven letters, words in capitals and letterspaced."""
    width, height = int(rng.integers(720, 950)), int(rng.integers(1000, 1300))
    sheet = Sheet(width, height)
    face, size = shelf.pick("typewriter", rng), int(rng.integers(13, 24))
    ink = dark_ink(rng) if rng.random() < 0.8 else (60, 40, 150)
    pitch, left = size * rng.uniform(1.15, 2.4), rng.uniform(0.08, 0.3) * width
    y, right = rng.uniform(0.04, 0.2) * height, width * rng.uniform(0.88, 0.97)
    bottom = height * (0.93 if rng.random() < 0.75 else rng.uniform(0.2, 0.9))
    while y < bottom:
        draw = rng.random()
        if draw < 0.12:
            text = texts.phrase(rng, 1, 3).upper()
            spacing = size * 0.6 if rng.random() < 0.3 else 0.0
            x = max((left + right - sheet.text_width(text, face, size, spacing)) / 2, left)
            end = sheet.write(x, y, text, face, size, ink, spacing)
            if rng.random() < 0.4:
                sheet.rule(x, y + size * 1.1, end, y + size * 1.1, 1, ink)
            y += pitch * rng.uniform(1, 2)
            continue
        rows = int(rng.integers(1, 9))
        count = int(rows * (right - left) / size / 3.4) + 2
        end_y = min(y + rows * pitch + size, height * 0.95)
        y = fill_column(sheet, texts.prose(rng, count), (left, y, right, end_y), face, size, pitch, ink, rng, False)
        y += pitch * rng.choice([0, 0, 1])
    return sheet


def han_page(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a page of horizontal Chinese or Japanese lines with headings."""
    width, height = int(rng.integers(700, 1000)), int(rng.integers(900, 1250))
    sheet = Sheet(width, height)
    face, ink = shelf.pick(("cjk_print", "cjk_print", "cjk_brush")[rng.integers(3)], rng), dark_ink(rng)
    size = int(rng.integers(12, 34))
    pitch, margin, y = size * rng.uniform(1.15, 2.0), rng.uniform(0.05, 0.14) * width, rng.uniform(0.04, 0.12) * height
    kana = (0.0, 0.0, 0.5)[rng.integers(3)]
    while y < height * 0.93:
        if rng.random() < 0.08:
            big = int(size * rng.uniform(1.2, 2.2))
            sheet.write(margin, y, texts.han(rng, int(rng.integers(2, 10)), face, kana), face, big, ink)
            y += big * 1.6
        for row in range(rng.integers(1, 7)):
            room = int((width - 2 * margin) / size)
            count = room if rng.random() < 0.7 else int(rng.integers(1, room + 1))
            indent = 2 * size if row == 0 and count > 3 else 0
            text = texts.han(rng, max(count - indent // size, 1), face, kana)
            if y < height * 0.95:
                sheet.write(margin + indent, y, text, face, size, ink)
            y += pitch
    return sheet


def vertical_page(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> Sheet:
    """Return one or two pages of vertical columns, right to left: frame, rules, notes in half-size double columns."""
    double = rng.random() < 0.45
    height = int(rng.integers(750, 1100))
    width = int(height * (rng.uniform(1.1, 1.45) if double else rng.uniform(0.6, 0.85)))
    sheet = Sheet(width, height)
    face = shelf.pick(("cjk_print", "cjk_brush", "cjk_brush")[rng.integers(3)], rng)
    ink = dark_ink(rng) if rng.random() < 0.9 else (150, 30, 20)
    kana = (0.0, 0.0, 0.6, 0.75)[rng.integers(4)]
    size = int(rng.integers(13, 40)) if rng.random() < 0.7 else int(rng.integers(40, 85))
    column = size * rng.uniform(1.1, 2.1 if size < 40 else 1.5)
    frame, rules = rng.random() < 0.65, rng.random() < 0.6
    breaks = rng.uniform(0.1, 0.9) if rng.random() < 0.5 else 0.0  # of the rules, where the block did not print
    pitch = size * rng.uniform(0.88, 1.25)
    if rng.random() < 0.15:  # set wide, as in titles, tables and large manuscript hands
        pitch = size * rng.uniform(1.25, 1.9)
    cells = int(rng.integers(2, 8)) if rng.random() < 0.12 else 1  # tables: rules from side to side part the columns
    noted = rng.choice([0.05, 0.25, 0.7])  # of the columns, with notes
    middle = width / 2
    for left, right in ((0.0, middle), (middle, float(width))) if double else ((0.0, float(width)),):
        x0, x1 = left + rng.uniform(0.05, 0.12) * (right - left), right - rng.uniform(0.05, 0.12) * (right - left)
        top, bottom = rng.uniform(0.06, 0.16) * height, height * rng.uniform(0.86, 0.95)
        if frame:
            sheet.box(x0, top, x1, bottom, int(rng.integers(1, 5)), ink)
        cuts = [top, *np.sort(rng.uniform(top, bottom, cells - 1)), bottom]
        for cut in cuts[1:-1]:
            sheet.rule(x0, cut, x1, cut, int(rng.integers(1, 3)), ink)
        x = x1 - column / 2
        while x - column / 2 >= x0:
            if rules:
                _worn_rule(sheet, rng, x - column / 2, top, bottom, breaks, ink)
            for high, low in pairwise(cuts):
                place = (x, high + 0.3 * size, low - 0.2 * size)
                _fill_vertical(sheet, rng, texts, face, place, size, pitch, ink, kana, noted)
            x -= column
    return sheet


def _worn_rule(
    sheet: Sheet, rng: np.random.Generator, x: float, top: float, bottom: float, breaks: float, ink: Ink
) -> None:
    """Draw a vertical rule of which a share of `breaks` is missing, in pieces from dots to long strokes."""
    y, piece = top, 10 ** rng.uniform(0.3, 2.0)
    if not breaks:
        sheet.rule(x, top, x, bottom, 1, ink)
        return
    while y < bottom:
        end = y + rng.exponential(piece) + 1
        sheet.rule(x, y, x, min(end, bottom), 1, ink)
        y = end + rng.exponential(piece) * breaks / (1 - breaks) + 1


def _fill_vertical(
    sheet: Sheet,
    rng: np.random.Generator,
    texts: Texts,
    face: Face,
    place: tuple[float, float, float],
    size: int,
    pitch: float,
    ink: Ink,
    kana: float,
    noted: float,
) -> None:
    """Fill one column `place` (centre x, top, bottom): empty, short, full, in pieces, or with double notes."""
    x, top, bottom = place
    if rng.random() < 0.06:
        return
    y = top + (pitch * int(rng.integers(1, 5)) if rng.random() < 0.2 else 0)
    room = int((bottom - y) / pitch)
    if room < 1:
        return
    if rng.random() < noted and size > 20 and room > 3:  # texts and notes in two half-size columns by turns
        half = size // 2
        while room >= 1:
            head = int(rng.integers(1, min(room, 9) + 1))
            y = sheet.write_down(x, y, texts.han(rng, head, face, kana), face, size, pitch, ink, 0.03) + 0.2 * size
            left = int((bottom - y) / (pitch / 2))
            if left < 1:
                break
            count = int(rng.integers(1, left + 1 if rng.random() < 0.3 else min(left, 8) + 1))
            for side, fewest in ((0.27, count), (-0.27, max(count - 1, 1))):
                note = texts.han(rng, int(rng.integers(fewest, count + 1)), face, kana)
                sheet.write_down(x + side * size, y, note, face, half, pitch / 2, ink)
            y += count * pitch / 2 + 0.2 * size
            room = int((bottom - y) / pitch)
        return
    count = room if rng.random() < 0.7 else int(rng.integers(1, room + 1))
    y = sheet.write_down(x, y, texts.han(rng, count, face, kana), face, size, pitch, ink, 0.04)
    left = int((bottom - y) / pitch)
    if left > 4 and rng.random() < 0.3:  # a second piece after a gap
        y += pitch * rng.uniform(1.5, 3)
        rest = max(int((bottom - y) / pitch), 1)
        if y + pitch < bottom:
            sheet.write_down(x, y, texts.han(rng, int(rng.integers(1, rest + 1)), face, kana), face, size, pitch, ink)


def layout_page(rng: np.random.Generator, lines: Sequence[Line], texts: Texts, shelf: FontShelf) -> Sheet:
    """Return a page with the columns of a real book: their places and text from its ground truth."""
    points = np.vstack([line.polygon for line in lines])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * (high - low)
    scale = rng.uniform(750, 1000) / float(min(high - low + 2 * margin))
    width, height = (int(v) for v in (high - low + 2 * margin) * scale)
    sheet = Sheet(width, height)
    face = shelf.pick(("cjk_print", "cjk_brush")[rng.integers(2)], rng)
    ink = dark_ink(rng)
    rules, fill = rng.random() < 0.6, rng.uniform(0.75, 0.92)
    for line in lines:
        polygon = (line.polygon - low + margin) * scale
        (x0, y0), (x1, y1) = polygon.min(axis=0), polygon.max(axis=0)
        text = texts.drawable(line.text, face).replace(" ", "") or texts.han(rng, 2, face)
        pitch = (y1 - y0) / len(text)
        # The mean width of the column: its bounding box is wider where it leans.
        breadth = abs(cv2.contourArea(polygon.astype(np.float32))) / max(y1 - y0, 1)
        size = int(min(breadth, 1.2 * pitch) * fill)
        if size < 6:
            sheet.ignore(polygon)
            continue
        sheet.write_down((x0 + x1) / 2, y0, text, face, size, pitch, ink, 0.03)
        if rules:
            sheet.rule(x0 - 0.15 * size, 0.05 * height, x0 - 0.15 * size, 0.95 * height, 1, BLACK)
    return sheet
