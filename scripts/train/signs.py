"""Pictures like photographs of signs: few texts of any size, in perspective, over anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.geometry import Size
from scripts.train.boards import put_up
from scripts.train.fonts import Face, FontShelf, has_glyph, open_font
from scripts.train.planes import Pose, find_place, see_outline
from scripts.train.scenes import Colour, cross, cut_photograph, make_advert, make_background, ramp
from scripts.train.sheet import BLACK, Sheet
from scripts.train.snapshots import take
from scripts.train.targets import line_height
from scripts.train.texts import Texts
from scripts.train.truth import IGNORED, Line, Page, move_lines
from scripts.train.wear import Picture

FACES = (
    *("sans", "sans", "display", "display", "display", "serif", "hand"),
    *("cjk_print", "cjk_display", "cjk_display", "cjk_brush"),
)
SIZES = (11, 14, 18, 24, 32, 44, 60, 90, 130, 190, 280)  # of characters in pixels, later changed by up to a quarter
HEADLINE = (110, 400)  # lowest and highest size of the few characters that fill a large part of some pictures
SYMBOLS = "".join(  # of Font Awesome, none like a letter, a digit or a mark
    chr(0xF000 + code)
    for low, high in (
        *((0x00, 0x0E), (0x10, 0x30), (0x3D, 0x45), (0x47, 0x54), (0x55, 0x58), (0x5B, 0x66), (0x6B, 0x6E)),
        *((0x70, 0x80), (0x83, 0x86), (0x91, 0x96), (0xA0, 0xAE), (0xB0, 0xB3), (0xC0, 0xC5), (0xD0, 0xD2)),
        *((0xE3, 0xE7), (0xE9, 0xF5), (0xF9, 0xFD), (0x108, 0x10D), (0x130, 0x138), (0x182, 0x184), (0x1AE, 0x1B4)),
        *((0x1B8, 0x1BC), (0x206, 0x208), (0x21A, 0x21F), (0x235, 0x23A)),
    )
    for code in range(low, high)
)
SMEARED = 4  # times the blur's deviation: lines of less height are no more than bars
SOFT = 10  # likewise: lines of more height can be read
PANELS = np.array(  # blue, green, red: what most panels are painted in
    [(250, 250, 250), (15, 15, 15), (40, 30, 195), (150, 60, 15), (50, 110, 15), (25, 205, 245), (15, 110, 235)],
    np.float32,
)
EYE = np.array([0.15, 0.5, 0.35], np.float32)  # how much of a difference in blue, green and red counts


def sign_page(
    rng: np.random.Generator,
    texts: Texts,
    shelf: FontShelf,
    photographs: Sequence[Path] = (),
    boards: Sequence[Page] = (),
    *,
    upright: bool = False,
) -> Page:
    """Return a picture, uint8 (H, W, 3) BGR, with some signs of one to six lines, and their lines.

    Where there are photographs, half are written over one, three of ten on an advertisement, the others over a drawn
    scene; advertisements and some others stand upright. `boards` are hung in the scene first, where they find a place.
    One of seven has no signs but those, on one of five there are others behind, out of focus. One of five pictures is a
    small one. What cannot be read is left out of the loss.
    """
    height, width = int(rng.integers(600, 850)), int(rng.integers(700, 1100))
    draw = rng.random() if photographs else 1.0
    advert = 0.5 <= draw < 0.8
    if draw < 0.5:
        scene = cut_photograph(rng, photographs[int(rng.integers(len(photographs)))], height, width)
    elif advert:
        scene = make_advert(rng, photographs, height, width)
    else:
        scene = make_background(rng, height, width)
    pose: Pose = "upright" if upright or advert or rng.random() < 0.3 else "any"
    taken = np.zeros((height, width), np.uint8)
    lines: list[Line] = []
    if rng.random() < 0.2:
        behind = [_sign(rng, texts, shelf) for _ in range(rng.integers(1, 12))]
        scene, lines = _unfocus(rng, scene, _put_up(rng, scene, taken, behind, pose))
    for board in boards:
        scene, written = put_up(rng, scene, taken, board, rng.uniform(0.5, 0.95), pose)
        lines += written
    lines += _put_up(rng, scene, taken, _signs(rng, texts, shelf), pose)
    if rng.random() < 0.2:
        cross(rng, scene)
    return take(rng, scene, lines, flawed=0.15)


def _signs(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> list[tuple[Sheet, int]]:
    """Return all signs of a picture, see `_sign`, in the order in which to look for places."""
    if rng.random() < 0.14:
        return []
    drawn = [_sign(rng, texts, shelf) for _ in range(int(1 + 32 * rng.random() ** 1.5))]
    if rng.random() < 0.5:  # the largest first, else it rarely finds a place
        drawn.sort(key=lambda sign: -sign[0].width * sign[0].height)
    if rng.random() < 0.25:
        drawn.insert(0, _sign(rng, texts, shelf, int(rng.uniform(*HEADLINE))))
    return drawn


def _put_up(
    rng: np.random.Generator,
    scene: Picture,
    taken: npt.NDArray[np.uint8],
    signs: Sequence[tuple[Sheet, int]],
    pose: Pose,
) -> list[Line]:
    """Paint the signs into the scene where they find a place, and return their lines there."""
    lines: list[Line] = []
    for sheet, size in signs:
        matrix = find_place(rng, taken, Size(sheet.height, sheet.width), pose)
        if matrix is not None:
            _paint(rng, scene, sheet, size, matrix)
            lines += move_lines(sheet.lines, matrix)
    return lines


def _unfocus(rng: np.random.Generator, scene: Picture, lines: Sequence[Line]) -> tuple[Picture, list[Line]]:
    """Return the scene out of focus, and its lines: what may or may not pass for text is left out of the loss."""
    blur = rng.uniform(1.5, 9)
    heights = [line_height(line.polygon) / blur for line in lines]
    visible = [
        line if height > SOFT else Line(line.polygon, IGNORED)
        for line, height in zip(lines, heights, strict=True)
        if height > SMEARED
    ]
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), blur), np.float32), visible


def _sign(rng: np.random.Generator, texts: Texts, shelf: FontShelf, headline: int = 0) -> tuple[Sheet, int]:
    """Return a small sheet, just large enough for its lines or symbol, and the size of its smallest characters.

    A `headline` of that size has text, few characters of it.
    """
    size = headline or int(rng.choice(SIZES) * rng.uniform(0.8, 1.25))
    if not headline and rng.random() < 0.12:
        side = int(size * rng.uniform(1.4, 2))
        sheet = Sheet(side, side)
        _draw_symbol(rng, sheet, shelf, size, side / 2, side / 2)
        return sheet, size
    family = FACES[rng.integers(len(FACES))]
    face = shelf.pick(family, rng)
    han, capitals = family.startswith("cjk"), rng.random() < 0.35
    down = han and rng.random() < 0.3
    brief = bool(headline) or (size > 100 and rng.random() < 0.6)  # few enough that they stay large
    alone = rng.random() < 0.1  # a single character
    today = han and not down and not brief and has_glyph(face, "们") and rng.random() < 0.7

    pad = size * rng.uniform(0.15, 0.6)
    if not (down or alone) and rng.random() < (0.3 if brief else 0.05):
        return _offer(rng, texts, face, size, pad), size

    def text() -> str:
        if alone:
            return texts.han(rng, 1, face, 0.2) if han else texts.character(rng, face)
        if today:
            return texts.slogan(rng, face)
        if han:
            return texts.han(rng, int(rng.integers(1, 5 if brief else 9)), face, 0.2)
        drawn = texts.number(rng) if rng.random() < 0.2 else texts.phrase(rng, 1, 1 if brief else 3)
        return texts.drawable(drawn.upper() if capitals else drawn, face)

    rows = [text() for _ in range(1 if headline or alone else rng.choice([1, 1, 1, 2, 3, 4, 6]))]
    if down:
        return _columns(rows, face, size, pad), size
    return _lay_out(rng, rows, face, shelf, size, pad), size


def _lay_out(
    rng: np.random.Generator, rows: Sequence[str], face: Face, shelf: FontShelf, size: int, pad: float
) -> Sheet:
    """Write the rows below each other, at times beside a symbol, or side by side, or a single one bent."""
    if len(rows) > 1 and rng.random() < 0.25:
        return _labels(rng, rows, face, size, pad)
    if len(rows) == 1 and len(rows[0].strip()) > 1 and rng.random() < 0.15:
        return _bent(rng, rows[0].strip(), face, size, pad)
    symbol = rng.random() < 0.12
    sheet = _stack(rng, rows, face, size, pad, left=1.5 * size if symbol else 0.0)
    if symbol:
        _draw_symbol(rng, sheet, shelf, size, pad + 0.6 * size, pad + 0.6 * size)
    return sheet


def _draw_symbol(rng: np.random.Generator, sheet: Sheet, shelf: FontShelf, size: int, x: float, y: float) -> None:
    """Draw an arrow, a telephone, a knife and fork about (x, y): next to text, and not to be found."""
    face, symbol = shelf.pick("symbol", rng), SYMBOLS[rng.integers(len(SYMBOLS))]
    if has_glyph(face, symbol):
        sheet.pen.text((x, y), symbol, font=open_font(face, size), fill=BLACK, anchor="mm")


def _columns(rows: Sequence[str], face: Face, size: int, pad: float) -> Sheet:
    """Write the rows downwards, beside each other."""
    sheet = Sheet(int(len(rows) * size * 1.4 + 2 * pad), int(max(map(len, rows)) * size * 1.1 + 2 * pad))
    for number, row in enumerate(rows):
        sheet.write_down(pad + (number + 0.5) * size * 1.4, pad, row, face, size, size * 1.1)
    return sheet


def _offer(rng: np.random.Generator, texts: Texts, face: Face, size: int, pad: float) -> Sheet:
    """Write a figure with its unit, most often smaller, as on what is for sale, or a letter or two of one size."""
    if rng.random() < 0.4:
        figure, unit = texts.token(rng), ""
    else:
        figure, unit = texts.quantity(rng)
    small = int(size * rng.uniform(0.4, 1))
    unit = texts.drawable(unit, face)
    wide = Sheet.text_width(figure, face, size)
    sheet = Sheet(int(wide + Sheet.text_width(unit, face, small) + 2 * pad), int(1.3 * size + 2 * pad))
    sheet.write_beside(pad, pad + size, [(figure, size), (unit, small)], face)
    return sheet


def _bent(rng: np.random.Generator, row: str, face: Face, size: int, pad: float) -> Sheet:
    """Write the row along a circle, as around a seal, or nearly straight with letters that dance."""
    wide = Sheet.text_width(row, face, size)
    dancing = rng.random() < 0.4
    turn = rng.uniform(0.02, 0.3) if dancing else rng.uniform(0.3, 3)  # from end to end
    curvature = min(turn / wide, 0.6 / size) * rng.choice([-1, 1])
    sink = (1 - np.cos(wide * curvature / 2)) / curvature  # from the middle to the ends
    wobble = rng.normal(0, 1, (len(row), 2)).clip(-1.5, 1.5) * ((0.1 * size, 0.15) if dancing else (0, 0))
    reach = 0.9 * size + pad
    sheet = Sheet(int(wide + 2 * reach), int(abs(sink) + 2 * reach))
    sheet.write_bent(sheet.width / 2, reach - min(sink, 0), row, face, size, curvature, wobble)
    return sheet


def _labels(rng: np.random.Generator, rows: Sequence[str], face: Face, size: int, pad: float) -> Sheet:
    """Write the rows side by side, too far from each other to be one line."""
    gap = size * rng.uniform(1.2, 4)
    width = sum(Sheet.text_width(row, face, size) + gap for row in rows) - gap
    sheet = Sheet(int(width + 2 * pad), int(1.4 * size + 2 * pad))
    x = pad
    for row in rows:
        x = sheet.write(x, pad, row, face, size) + gap
    return sheet


def _stack(
    rng: np.random.Generator, rows: Sequence[str], face: Face, size: int, pad: float, left: float = 0.0
) -> Sheet:
    """Write the rows below each other, at times with a headline, at times spaced out, at times nearly touching.

    `left` pixels stay free there.
    """
    sizes = [size] * len(rows)
    if len(rows) > 1 and rng.random() < 0.5:
        sizes[0] = int(size * rng.uniform(1.4, 3))
    spacing = rng.uniform(0.1, 0.9) if rng.random() < 0.15 else 0.0
    widths = [Sheet.text_width(row, face, big, big * spacing) for row, big in zip(rows, sizes, strict=True)]
    aligned = rng.choice([0.0, 0.0, 0.5, 1.0])
    if rng.random() < 0.4:  # the gap is between the ink of one line and that of the next
        gap = size * rng.uniform(0.03, 0.25)
        spans = [Sheet.ink_span(rows, face, big) for big in sizes]
        pitches = [bottom + gap - below for (_, bottom), (below, _) in zip(spans, [*spans[1:], spans[-1]], strict=True)]
    else:
        tight = all(row.upper() == row and row.isascii() for row in rows)  # nothing hangs below the line
        leading = rng.uniform(0.85 if tight else 1.1, 1.5)
        pitches = [big * leading for big in sizes]
    sheet = Sheet(int(left + max(widths) + 2 * pad), int(sum(pitches) + 0.3 * sizes[-1] + 2 * pad))
    y = pad
    for row, big, wide, pitch in zip(rows, sizes, widths, pitches, strict=True):
        sheet.write(left + pad + (max(widths) - wide) * aligned, y, row, face, big, spacing=big * spacing)
        y += pitch
    return sheet


def _paint(
    rng: np.random.Generator,
    scene: Picture,
    sheet: Sheet,
    size: int,
    matrix: npt.NDArray[np.float64],
) -> None:
    """Paint the sheet's ink into the scene, in colours that can be told from the ground, at times on a panel.

    Letters may be of two colours, outlined, with a shadow, out of focus, in the light and shade of what is below.
    `size` is that of the smallest on the sheet, `matrix` the homography (3, 3) from the sheet to the scene.
    """
    outline = see_outline(Size(sheet.height, sheet.width), matrix)
    left, top = np.maximum(outline.min(axis=0) - 8, 0).astype(int)
    right, bottom = np.minimum(outline.max(axis=0) + 8, scene.shape[1::-1]).astype(int)
    place = scene[top:bottom, left:right]
    shade = _shade(rng, place)
    shape = (int(right - left), int(bottom - top))
    matrix = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ matrix
    ink = np.asarray(_ink(rng, sheet, size), np.float32)
    cover = cv2.warpPerspective(ink / max(float(ink.max()), 1e-3), matrix, shape, flags=cv2.INTER_AREA)
    panel = cv2.warpPerspective(_plate(rng, sheet, size), matrix, shape) > 0.5
    down = ramp(shape[1])
    if rng.random() < 0.5:
        usual = PANELS[rng.integers(len(PANELS))] + rng.normal(0, 12, 3)
        colours = (usual if rng.random() < 0.5 else rng.uniform(0, 255, 3)) + down * (
            rng.normal(0, 40, 3) if rng.random() < 0.3 else np.zeros(3)
        )
        plain = np.broadcast_to(colours, (*shape[::-1], 3)).astype(np.float32)
        opaque = np.float32(0.9 if rng.random() < 0.7 else rng.uniform(0.4, 0.9))
        place[panel] = place[panel] * (1 - opaque) + (plain * shade)[panel] * opaque
    ground = np.asarray(place[panel].mean(axis=0) if panel.any() else np.full(3, 128), np.float32)
    contrast = rng.uniform(110, 230) if rng.random() < 0.5 else rng.uniform(25, 200)
    colour = readable_colour(rng, ground, contrast)
    if rng.random() < 0.3:  # an outlined letter
        reach = 1 + 2 * int(rng.integers(1, max(size // 14, 1) + 1))
        _cover(place, cv2.dilate(cover, np.ones((reach, reach), np.uint8)), readable_colour(rng, colour, 100))
        if rng.random() < 0.2:  # nothing but its outline
            colour = ground
    if rng.random() < 0.2:  # its shadow, or its own light around it
        far = rng.integers(1, max(size // 10, 2) + 1, 2)
        lit = rng.random() < 0.3
        shadow = cv2.GaussianBlur(cover, (0, 0), 0.1 * size) if lit else np.roll(cover, far, axis=(0, 1))
        shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(0.5, 2))
        _cover(place, shadow * np.float32(rng.uniform(0.3, 1)), colour if lit else np.zeros(3, np.float32))
    if rng.random() < 0.25:
        cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.5, max(0.05 * size, 0.6)))
    if contrast > 100 and rng.random() < 0.2:  # a watermark
        cover = cover * np.float32(rng.uniform(0.3, 0.7))
    if rng.random() < 0.08:  # every letter another colour
        stripes = np.stack([readable_colour(rng, ground, contrast) for _ in range(-(-shape[0] // size))])
        _cover(place, cover, stripes.repeat(size, axis=0)[None, : shape[0]] * shade)
        return
    shades = rng.normal(0, 35, 3) if rng.random() < 0.25 else np.zeros(3)
    _cover(place, cover, np.clip(colour + down * shades, 0, 255) * shade)


def _ink(rng: np.random.Generator, sheet: Sheet, size: int) -> cv2.typing.MatLike:
    """Return how much of each pixel is ink, 0 to 1, float32 (H, W): at times heavier or lighter than written."""
    ink: cv2.typing.MatLike = 1 - np.asarray(sheet.ink.convert("L"), np.float32) / 255
    draw = rng.random()
    if draw < 0.2:
        return cv2.dilate(ink, np.ones((1 + int(0.06 * size),) * 2, np.uint8))
    if draw < 0.3:
        lighter = cv2.erode(ink, np.ones((1 + int(0.04 * size),) * 2, np.uint8))
        if lighter.sum() > 0.3 * ink.sum():  # enough to be read
            return lighter
    return ink


def _plate(rng: np.random.Generator, sheet: Sheet, size: int) -> cv2.typing.MatLike:
    """Return what of a sheet may be painted below its ink, 0 or 1, float32 (H, W): all, a plate a line, an emblem."""
    none = np.zeros((sheet.height, sheet.width), np.float32)
    draw = rng.random()
    if draw < 0.15 and sheet.lines:
        plates = cv2.fillPoly(none, [line.polygon.astype(np.int32) for line in sheet.lines], 1.0)
        return cv2.dilate(plates, np.ones((3, 1 + 2 * (size // 6)), np.uint8))
    if draw < 0.25 and len(sheet.lines) == 1:
        middle = (sheet.width // 2, sheet.height // 2)
        return cv2.ellipse(none, middle, middle, 0, 0, 360, 1.0, -1)
    return none + 1


def _shade(rng: np.random.Generator, place: Picture) -> npt.NDArray[np.float32]:
    """Return the light on each pixel of a place, (H, W, 1), about 1: most often the same everywhere."""
    if rng.random() < 0.6:
        return np.ones((1, 1, 1), np.float32)
    grey = cv2.GaussianBlur(place.mean(axis=2), (0, 0), rng.uniform(0.5, 6)).astype(np.float32)
    relative = np.clip((grey + 30) / (grey.mean() + 30), 0.3, 2) ** np.float32(rng.uniform(0.3, 1))
    return np.asarray(relative[..., None], np.float32)


def colour_distance(colours: npt.NDArray[np.float32], ground: Colour) -> npt.NDArray[np.float32]:
    """Return how far colours (..., 3) are from the ground's for the eye, 0 to 255."""
    return np.asarray(np.sqrt((colours - ground) ** 2 @ EYE), np.float32)


def readable_colour(rng: np.random.Generator, ground: Colour, contrast: float) -> Colour:
    """Return a grey, a pure colour or any, as far from the ground's as `contrast` (0 to 255) or as can be."""
    drawn = rng.uniform(0, 255, (18, 3)).astype(np.float32)
    drawn[::3] = drawn[::3].mean(axis=1, keepdims=True)
    drawn[1::3] = 255 * (drawn[1::3] > 127)
    drawn = rng.permutation(drawn)
    distances = colour_distance(drawn, ground)
    # The first that is far enough, else the farthest.
    return np.asarray(drawn[np.minimum(distances, contrast).argmax()])


def _cover(place: Picture, share: cv2.typing.MatLike, colours: npt.NDArray[np.floating]) -> None:
    """Mix colours, which broadcast against (H, W, 3), into a place, as far as `share` (H, W) says."""
    place += share[..., None] * (colours - place)
