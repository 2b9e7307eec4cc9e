"""Pictures like photographs of signs: few texts of any size, in perspective, over anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.errors import UsageError
from scripts.train.fonts import Face, FontShelf, has_glyph
from scripts.train.sheet import Sheet
from scripts.train.texts import Texts
from scripts.train.truth import Line, rectangle
from scripts.train.wear import Picture, clouds, photograph

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp")
FACES = (
    *("sans", "sans", "display", "display", "display", "serif", "hand"),
    *("cjk_print", "cjk_display", "cjk_display", "cjk_brush"),
)
CAMERA = 1.5  # distance of it, in lengths of the sign
TURNED = np.radians((24.0, 14.0))  # standard deviation of how far signs are turned away, sideways and up or down
SIZES = (11, 14, 18, 24, 32, 44, 60, 90, 130, 190, 280)  # of characters in pixels, later changed by up to a quarter
EYE = np.array([0.15, 0.5, 0.35], np.float32)  # how much of a difference in blue, green and red counts
Place = npt.NDArray[np.int_]  # (x, y)
Colour = npt.NDArray[np.float32]  # (blue, green, red)


def find_photographs(folder: Path) -> list[Path]:
    """Return the pictures in a folder, at any depth.

    Raises:
        UsageError: there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in PHOTOGRAPHS)
    if not paths:
        raise UsageError(f"no picture ({', '.join(PHOTOGRAPHS)}) in the folder of photographs", where=folder)
    return paths


def cut_photograph(rng: np.random.Generator, path: Path, height: int, width: int) -> Picture:
    """Return a piece of a photograph, at times mirrored, grey, darker, or of other colours.

    Raises:
        UsageError: the picture cannot be read.
    """
    photograph = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photograph is None:
        raise UsageError("cannot read the photograph", where=path)
    full_height, full_width = photograph.shape[:2]
    share = rng.uniform(0.25, 1.0) * min(full_height / height, full_width / width)
    high, wide = int(share * height), int(share * width)
    top, left = rng.integers(full_height - high + 1), rng.integers(full_width - wide + 1)
    piece = cv2.resize(photograph[top : top + high, left : left + wide], (width, height), interpolation=cv2.INTER_AREA)
    scene = piece[:, :: rng.choice([-1, 1])].astype(np.float32)
    grey = scene.mean(axis=2, keepdims=True)
    scene = grey + (scene - grey) * (0.0 if rng.random() < 0.1 else rng.uniform(0.2, 1.1))
    if rng.random() < 0.3:
        scene = scene[..., rng.permutation(3)]
    return np.asarray(scene * np.float32(rng.uniform(0.3, 1.2)), np.float32)


def _ramp(height: int) -> Picture:
    """Return 0 at the top to 1 at the bottom, float32 (height, 1, 1)."""
    return np.linspace(0, 1, height, dtype=np.float32)[:, None, None]


def make_background(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Return a scene without text: gradients, clouds, shapes, bars, windows, foliage, grain; more grey than bright."""
    saturation = 1.0 if rng.random() < 0.35 else rng.uniform(0.05, 0.5)

    def colour() -> Colour:
        drawn = rng.uniform(0, 255, 3)
        return np.asarray(drawn.mean() + (drawn - drawn.mean()) * saturation, np.float32)

    ramp = _ramp(height)
    scene = np.repeat(colour() * (1 - ramp) + colour() * ramp, width, axis=1)
    for cell in (200, 40, 8):
        tint = rng.uniform(0, 25) * (1 - saturation) + rng.uniform(0, 25, 3) * saturation
        scene += clouds(rng, height, width, cell)[..., None] * tint.astype(np.float32)
    for _ in range(rng.integers(3, 30)):
        corner, size = (rng.uniform(-0.1, 1.1, 2) * (width, height)).astype(int), rng.uniform(8, 300, 2).astype(int)
        SHAPES[rng.integers(len(SHAPES))](rng, scene, corner, size, colour())
    return cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 3)).astype(np.float32)


def _plain(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    thickness = int(rng.choice([-1, -1, 1, 3, 8]))
    if rng.random() < 0.5:
        cv2.rectangle(scene, corner.tolist(), (corner + size).tolist(), colour.tolist(), thickness)
    else:
        cv2.ellipse(scene, corner.tolist(), size.tolist(), rng.uniform(0, 180), 0, 360, colour.tolist(), thickness)


def _bars(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    """Draw bars, bricks, blinds: what is most often taken for text."""
    step = int(rng.integers(5, 30))
    for k in range(rng.integers(3, 25)):
        x = int(corner[0]) + k * step
        cv2.line(scene, (x, int(corner[1])), (x, int(corner[1] + size[1])), colour.tolist(), max(step // 3, 1))


def _patch(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    points = corner + rng.normal(0, 0.5, (rng.integers(3, 8), 2)) * size
    cv2.fillPoly(scene, [points.astype(np.int32)], colour.tolist())


def _windows(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    """Draw a grid of equal boxes, as windows of a house, keys, tiles, shelves."""
    pitch = rng.uniform(12, 70, 2)
    box = pitch * rng.uniform(0.35, 0.9, 2)
    thickness = int(rng.choice([-1, -1, 1, 2]))
    columns, rows = (1 + size // pitch).astype(int)
    for row in range(rows):
        for column in range(columns):
            a = corner + pitch * (column, row)
            cv2.rectangle(scene, a.astype(int).tolist(), (a + box).astype(int).tolist(), colour.tolist(), thickness)


def _foliage(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    """Fill a rounded place with ragged spots: leaves, gravel, fur, crowds."""
    height, width = scene.shape[:2]
    spots = clouds(rng, height, width, int(rng.integers(2, 12))) > rng.uniform(-0.5, 0.8)
    place = np.zeros((height, width), np.uint8)
    cv2.ellipse(place, corner.tolist(), size.tolist(), rng.uniform(0, 180), 0, 360, 1, -1)
    scene[spots & (place > 0)] = colour


SHAPES = (_plain, _plain, _bars, _patch, _windows, _foliage)


def make_advert(rng: np.random.Generator, photographs: Sequence[Path], height: int, width: int) -> Picture:
    """Return a plain ground, most often a light one, with some cuts of photographs on it."""
    ground = rng.uniform(200, 255, 3) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    scene = np.repeat((ground + _ramp(height) * rng.normal(0, 30, 3)).astype(np.float32), width, axis=1)
    for _ in range(rng.integers(1, 4)):
        h, w = (int(side) for side in rng.uniform(0.2, 0.8, 2) * (height, width))
        top, left = rng.integers(height - h), rng.integers(width - w)
        piece = cut_photograph(rng, photographs[int(rng.integers(len(photographs)))], h, w)
        cut = np.ones((h, w), np.uint8)
        if rng.random() < 0.6:
            middle = (w // 2, h // 2)
            cut = cv2.ellipse(np.zeros((h, w), np.uint8), middle, middle, 0, 0, 360, 1, -1).astype(np.uint8)
        place = scene[top : top + h, left : left + w]
        place[cut > 0] = piece[cut > 0]
    return scene


def sign_page(
    rng: np.random.Generator, texts: Texts, shelf: FontShelf, photographs: Sequence[Path] = ()
) -> tuple[npt.NDArray[np.uint8], list[Line]]:
    """Return a picture, uint8 (H, W, 3) BGR, with some signs of one to six lines, and their lines.

    Where there are photographs, half are written over one, three of ten on an advertisement, the others over a drawn
    scene; advertisements and some others stand upright.
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
    upright = advert or rng.random() < 0.3
    taken = np.zeros((height, width), np.uint8)
    lines: list[Line] = []
    drawn = [_sign(rng, texts, shelf) for _ in range(int(0.8 + 32 * rng.random() ** 1.5))]
    if rng.random() < 0.5:  # the largest first, else it rarely finds a place
        drawn.sort(key=lambda sign: -sign[0].width * sign[0].height)
    for sheet, size in drawn:
        matrix = _placement(rng, sheet, width, height, upright)
        outline = cv2.perspectiveTransform(rectangle(0, 0, sheet.width, sheet.height)[None], matrix)[0]
        place = np.zeros_like(taken)
        cv2.fillConvexPoly(place, outline.astype(np.int32), 1)
        inside = (outline >= 0).all() and (outline < (width, height)).all()
        if (taken & place).any() or not (inside or rng.random() < 0.3):
            continue
        taken |= place
        _paint(rng, scene, sheet, size, matrix, outline)
        lines += [Line(cv2.perspectiveTransform(line.polygon[None], matrix)[0], line.text) for line in sheet.lines]
    if rng.random() < 0.15:
        scene = _shake(rng, scene)
    if rng.random() < 0.15:
        scene = _coarsen(rng, scene)
    return photograph(rng, scene), lines


def _coarsen(rng: np.random.Generator, scene: Picture) -> Picture:
    """Return the scene as a lesser camera sees it, or a picture that was enlarged."""
    height, width = scene.shape[:2]
    factor = rng.uniform(1.3, 2.5)
    small = cv2.resize(scene, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _shake(rng: np.random.Generator, scene: Picture) -> Picture:
    """Return the scene as a camera sees it that moves meanwhile, by up to seven pixels."""
    reach = int(rng.integers(1, 4))
    track = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    far = np.round(reach * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    cv2.line(track, (reach - far).tolist(), (reach + far).tolist(), 1.0)
    return np.asarray(cv2.filter2D(scene, -1, track / track.sum()), np.float32)


def _sign(rng: np.random.Generator, texts: Texts, shelf: FontShelf) -> tuple[Sheet, int]:
    """Return a small sheet, just large enough for its lines, and the size of its smallest characters."""
    size = int(rng.choice(SIZES) * rng.uniform(0.8, 1.25))
    family = FACES[rng.integers(len(FACES))]
    face = shelf.pick(family, rng)
    han, capitals = family.startswith("cjk"), rng.random() < 0.35
    down = han and rng.random() < 0.3
    brief = size > 100 and rng.random() < 0.6  # few enough that they stay large
    today = han and not down and not brief and has_glyph(face, "们") and rng.random() < 0.7

    def text() -> str:
        if today:
            return texts.slogan(rng, face)
        if han:
            return texts.han(rng, int(rng.integers(1, 5 if brief else 9)), face, 0.2)
        drawn = texts.number(rng) if rng.random() < 0.2 else texts.phrase(rng, 1, 1 if brief else 3)
        return drawn.upper() if capitals else drawn

    rows = [text() for _ in range(rng.choice([1, 1, 1, 2, 3, 4, 6]))]
    pad = size * rng.uniform(0.15, 0.6)
    if down:
        return _columns(rows, face, size, pad), size
    if len(rows) > 1 and rng.random() < 0.25:
        return _labels(rng, rows, face, size, pad), size
    return _stack(rng, rows, face, size, pad), size


def _columns(rows: Sequence[str], face: Face, size: int, pad: float) -> Sheet:
    """Write the rows downwards, beside each other."""
    sheet = Sheet(int(len(rows) * size * 1.4 + 2 * pad), int(max(map(len, rows)) * size * 1.1 + 2 * pad))
    for number, row in enumerate(rows):
        sheet.write_down(pad + (number + 0.5) * size * 1.4, pad, row, face, size, size * 1.1)
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


def _stack(rng: np.random.Generator, rows: Sequence[str], face: Face, size: int, pad: float) -> Sheet:
    """Write the rows below each other, at times with a headline, at times spaced out."""
    sizes = [size] * len(rows)
    if len(rows) > 1 and rng.random() < 0.5:
        sizes[0] = int(size * rng.uniform(1.4, 3))
    spacing = rng.uniform(0.1, 0.6) if rng.random() < 0.15 else 0.0
    widths = [Sheet.text_width(row, face, big, big * spacing) for row, big in zip(rows, sizes, strict=True)]
    leading, aligned = rng.uniform(1.15, 1.6), rng.choice([0.0, 0.0, 0.5, 1.0])
    sheet = Sheet(int(max(widths) + 2 * pad), int(sum(sizes) * leading + 2 * pad))
    y = pad
    for row, big, wide in zip(rows, sizes, widths, strict=True):
        sheet.write(pad + (max(widths) - wide) * aligned, y, row, face, big, spacing=big * spacing)
        y += big * leading
    return sheet


def _placement(
    rng: np.random.Generator, sheet: Sheet, width: int, height: int, upright: bool
) -> npt.NDArray[np.float64]:
    """Return the homography (3, 3) from the sheet's pixels to the scene's."""
    w, h = sheet.width, sheet.height
    fit = min(1.0, 0.9 * width / w, 0.9 * height / h)
    corners = rectangle(0, 0, w, h)
    bent = corners * fit + rng.normal(0, 0.005 if upright else 0.03, (4, 2)) * min(w, h) * fit
    if not upright:
        yaw, pitch = np.clip(rng.normal(0, TURNED), -1, 1).tolist()
        bent = turn_away(bent - bent.mean(axis=0), yaw, pitch)
    angle = np.radians(rng.uniform(-60, 60) if rng.random() < 0.1 else rng.normal(0, 1 if upright else 10))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height])
    target = (bent - bent.mean(axis=0)) @ turn.T + centre
    return np.asarray(cv2.getPerspectiveTransform(corners, target.astype(np.float32)), np.float64)


def turn_away(corners: npt.NDArray[np.float64], yaw: float, pitch: float) -> npt.NDArray[np.float64]:
    """Return where a camera sees the corners (4, 2) of a plane about the origin, turned by two angles in radians."""
    x, y = corners[:, 0], corners[:, 1] * np.cos(pitch)
    z = corners[:, 1] * np.sin(pitch)
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    nearness = 1 + z / (CAMERA * np.ptp(corners, axis=0).max())
    return np.asarray(np.stack([x, y], axis=1) / nearness[:, None], np.float64)


def _paint(
    rng: np.random.Generator,
    scene: Picture,
    sheet: Sheet,
    size: int,
    matrix: npt.NDArray[np.float64],
    outline: npt.NDArray[np.floating],
) -> None:
    """Paint the sheet's ink into the scene, in colours that can be told from the ground, at times on a panel.

    Letters may be of two colours, outlined, with a shadow, out of focus, in the light and shade of what is below.
    `size` is that of the smallest on the sheet, `matrix` the homography (3, 3) from the sheet to the scene, `outline`
    what it makes of the sheet's corners, (4, 2).
    """
    left, top = np.maximum(outline.min(axis=0) - 8, 0).astype(int)
    right, bottom = np.minimum(outline.max(axis=0) + 8, scene.shape[1::-1]).astype(int)
    place = scene[top:bottom, left:right]
    shade = _shade(rng, place)
    shape = (int(right - left), int(bottom - top))
    matrix = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ matrix
    ink = 1 - np.asarray(sheet.ink.convert("L"), np.float32) / 255
    cover = cv2.warpPerspective(ink / max(float(ink.max()), 1e-3), matrix, shape, flags=cv2.INTER_AREA)
    panel = cv2.warpPerspective(np.ones_like(ink), matrix, shape) > 0.5
    down = _ramp(shape[1])
    if rng.random() < 0.5:
        colours = rng.uniform(0, 255, 3) + down * (rng.normal(0, 40, 3) if rng.random() < 0.3 else np.zeros(3))
        plain = np.broadcast_to(colours, (*shape[::-1], 3)).astype(np.float32)
        opaque = np.float32(0.9 if rng.random() < 0.7 else rng.uniform(0.4, 0.9))
        place[panel] = place[panel] * (1 - opaque) + (plain * shade)[panel] * opaque
    ground = np.asarray(place[panel].mean(axis=0) if panel.any() else np.full(3, 128), np.float32)
    contrast = rng.uniform(40, 200)
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


def _shade(rng: np.random.Generator, place: Picture) -> npt.NDArray[np.float32]:
    """Return the light on each pixel of a place, (H, W, 1), about 1: most often the same everywhere."""
    if rng.random() < 0.6:
        return np.ones((1, 1, 1), np.float32)
    grey = cv2.GaussianBlur(place.mean(axis=2), (0, 0), rng.uniform(0.5, 6)).astype(np.float32)
    relative = np.clip((grey + 30) / (grey.mean() + 30), 0.3, 2) ** np.float32(rng.uniform(0.3, 1))
    return np.asarray(relative[..., None], np.float32)


def readable_colour(rng: np.random.Generator, ground: Colour, contrast: float) -> Colour:
    """Return a grey, a pure colour or any, as far from the ground's as `contrast` (0 to 255) or as can be."""
    drawn = rng.uniform(0, 255, (18, 3)).astype(np.float32)
    drawn[::3] = drawn[::3].mean(axis=1, keepdims=True)
    drawn[1::3] = 255 * (drawn[1::3] > 127)
    drawn = rng.permutation(drawn)
    distances = np.sqrt((drawn - ground) ** 2 @ EYE)
    # The first that is far enough, else the farthest.
    return np.asarray(drawn[np.minimum(distances, contrast).argmax()])


def _cover(place: Picture, share: cv2.typing.MatLike, colours: npt.NDArray[np.floating]) -> None:
    """Mix colours, which broadcast against (H, W, 3), into a place, as far as `share` (H, W) says."""
    place += share[..., None] * (colours - place)
