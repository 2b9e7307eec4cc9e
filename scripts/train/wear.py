"""From ink on white to the picture of a page: paper, bleed-through, fading, curl, desk, shadow, blur, noise."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from scripts.train.sheet import Sheet
from scripts.train.truth import Line, move_lines, rectangle

Picture = npt.NDArray[np.float32]  # (H, W, 3) BGR, from 0 to 255
PAPERS = ((250, 250, 250), (235, 243, 246), (205, 226, 236), (176, 208, 226), (150, 190, 215), (215, 215, 215))


def clouds(rng: np.random.Generator, height: int, width: int, cell: int) -> npt.NDArray[np.float32]:
    """Return smooth noise (H, W) of about zero mean and unit deviation, its features `cell` pixels large."""
    grid = rng.standard_normal((height // cell + 3, width // cell + 3)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def make_paper(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Return blank paper: its colour, unevenness, grain, stains."""
    colour = np.array(PAPERS[rng.integers(len(PAPERS))], np.float32) + rng.normal(0, 6, 3).astype(np.float32)
    if rng.random() < 0.08:  # coloured forms and covers
        colour = rng.uniform(120, 240, 3).astype(np.float32)
    paper = np.empty((height, width, 3), np.float32)
    paper[:] = colour
    paper += (clouds(rng, height, width, 150) * rng.uniform(0, 5))[..., None]
    paper += (clouds(rng, height, width, 6) * rng.uniform(0, 2.5))[..., None]
    paper += rng.standard_normal((height, width, 1)).astype(np.float32) * np.float32(rng.uniform(0, 3))
    for _ in range(rng.integers(0, 4) if rng.random() < 0.3 else 0):
        stain = np.zeros((height, width), np.float32)
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        axes = tuple(int(v) for v in rng.uniform(15, 120, 2))
        cv2.ellipse(stain, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        soft = cv2.GaussianBlur(stain, (0, 0), rng.uniform(2, 15))
        paper *= 1 - soft[..., None] * np.float32(rng.uniform(0.03, 0.2, 3))
    return paper


def print_on(rng: np.random.Generator, paper: Picture, sheet: Sheet, below: Sheet | None = None) -> Picture:
    """Return the paper with the sheet's ink on it, faded, spread; its other side or the sheet `below` shows through."""
    ink = sheet.coverage()
    height, width = ink.shape[:2]
    if rng.random() < 0.5:
        ink = cv2.GaussianBlur(ink, (0, 0), rng.uniform(0.3, 0.9)).astype(np.float32, copy=False)
    strength = rng.uniform(0.5, 1.0) if rng.random() < 0.5 else 1.0
    faint = rng.random() < 0.1  # carbon copies, thermal paper
    if faint:
        strength = rng.uniform(0.3, 0.5)
    cover = np.full((height, width), strength, np.float32)
    if rng.random() < 0.5:
        cover *= np.clip(1 + clouds(rng, height, width, 60) * rng.uniform(0, 0.25), 0.3, 1.3)
    if not faint and rng.random() < 0.4:  # worn type and coarse paper
        cover *= np.clip(1.1 + clouds(rng, height, width, 3) * rng.uniform(0, 0.4), 0, 1)
    ink *= cover[..., None]
    if below:
        seen = cv2.resize(below.coverage(), (width, height), interpolation=cv2.INTER_AREA)
        ink = _show_through(rng, ink, seen, rng.uniform(0.3, 1.5), rng.uniform(0.03, 0.16))
    elif rng.random() < 0.3:
        ink = _show_through(rng, ink, ink[:, ::-1], rng.uniform(0.8, 3), rng.uniform(0.06, 0.28))
    page = paper * np.clip(1 - ink, 0, 1)
    if not faint and rng.random() < 0.12:  # scanned in black and white, at a level that keeps all but faint ink
        level = np.median(page) * rng.uniform(0.72, 0.85)
        page = np.repeat(np.where(page.mean(axis=2, keepdims=True) < level, 0, 255), 3, axis=2)
    return np.asarray(page, np.float32)


def _show_through(
    rng: np.random.Generator, ink: Picture, other: cv2.typing.MatLike, blur: float, strength: float
) -> Picture:
    """Return the ink with another's on it, somewhat moved, faint."""
    moved = np.roll(other, rng.integers(-40, 40, 2), axis=(0, 1)).mean(axis=2, keepdims=True)
    faint = cv2.GaussianBlur(moved, (0, 0), blur).astype(np.float32) * np.float32(strength)
    return np.asarray(np.maximum(ink, faint[..., None]), np.float32)


def densify(polygon: npt.NDArray[np.float32], step: float) -> npt.NDArray[np.float32]:
    """Return the polygon with points added so that no edge is longer than `step`."""
    out = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        count = int(np.linalg.norm(b - a) // step) + 1
        out.append(a + (b - a) * (np.arange(count, dtype=np.float32) / count)[:, None])
    return np.vstack(out).astype(np.float32)


def curl(rng: np.random.Generator, picture: Picture, lines: list[Line]) -> tuple[Picture, list[Line]]:
    """Return the page as if it did not lie flat: both directions displaced by long waves of a few pixels."""
    height, width = picture.shape[:2]
    amplitude, phase = rng.uniform(-6, 6, 2), rng.uniform(0, 2 * np.pi, 2)
    length = rng.uniform(0.6, 2.0, 2) * width
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))

    def shift(px: npt.NDArray[np.float32], py: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
        dx = amplitude[0] * np.sin(2 * np.pi * py / length[0] + phase[0])
        dy = amplitude[1] * np.sin(2 * np.pi * px / length[1] + phase[1])
        return dx.astype(np.float32), dy.astype(np.float32)

    dx, dy = shift(x, y)
    bent = cv2.remap(picture, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = []
    for line in lines:
        polygon = densify(line.polygon, 60)
        # remap pulls: what was at p appears at p - shift(p), up to the shift's change over the shift.
        moved.append(Line(polygon - np.stack(shift(polygon[:, 0], polygon[:, 1]), axis=1), line.text))
    return bent.astype(np.float32), moved


def lay_on_desk(rng: np.random.Generator, picture: Picture, lines: list[Line]) -> tuple[Picture, list[Line]]:
    """Return the page photographed on a desk: a margin of another colour, a little perspective and rotation.

    At times the page before it in a book lies at its left, and what is written on the other side of that shows through.
    """
    height, width = picture.shape[:2]
    left, right = rng.uniform(0.0, 0.12, 2) * width
    in_book = rng.random() < 0.2
    if in_book:
        left = rng.uniform(0.05, 0.22) * width
    top, bottom = rng.uniform(0.0, 0.1, 2) * height
    out_width, out_height = int(width + left + right), int(height + top + bottom)
    corners = rectangle(0, 0, width, height)
    jitter = rng.normal(0, 0.012, (4, 2)).astype(np.float32) * np.array([width, height], np.float32)
    angle = np.radians(rng.normal(0, 1.2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    centre = corners.mean(axis=0)
    target = (corners - centre + jitter) @ turn.T + centre + np.array([left, top], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target.astype(np.float32))
    desk = np.empty((out_height, out_width, 3), np.float32)
    desk[:] = rng.uniform(10, 200, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 180))
    desk += (clouds(rng, out_height, out_width, int(rng.integers(2, 60))) * rng.uniform(0, 14))[..., None]
    if in_book:
        spine = rng.uniform(0.03, 0.15) * width
        mirror = matrix @ np.array([[-1, 0, 2 * spine], [0, 1, rng.uniform(-20, 20)], [0, 0, 1]], np.float32)
        paper = np.median(picture, axis=(0, 1))
        desk = lay(paper + (picture - paper) * rng.uniform(0.2, 0.7), mirror, desk)
    return lay(picture, matrix, desk), move_lines(lines, matrix)


def lay(picture: cv2.typing.MatLike, matrix: cv2.typing.MatLike, desk: Picture) -> Picture:
    """Return the desk with the picture on it, where the homography (3, 3) takes it."""
    size = desk.shape[1::-1]
    seen = cv2.warpPerspective(picture, matrix, size)
    cover = cv2.warpPerspective(np.ones(picture.shape[:2], np.float32), matrix, size)
    return np.asarray(seen + desk * (1 - cover[..., None]), np.float32)


def photograph(rng: np.random.Generator, picture: Picture) -> npt.NDArray[np.uint8]:
    """Return the picture as a camera or scanner saves it: shadow, fold, contrast, blur, noise."""
    height, width = picture.shape[:2]
    if rng.random() < 0.35:
        light = np.linspace(rng.uniform(0.55, 1), 1, width, dtype=np.float32)[:: rng.choice([-1, 1])]
        picture = picture * light[None, :, None]
    if rng.random() < 0.25:
        light = np.linspace(rng.uniform(0.6, 1), 1, height, dtype=np.float32)[:: rng.choice([-1, 1])]
        picture = picture * light[:, None, None]
    if rng.random() < 0.15:  # a soft shadow's edge
        picture = picture * (1 - np.clip(clouds(rng, height, width, 250), 0, 1) * rng.uniform(0.1, 0.4))[..., None]
    if rng.random() < 0.15:  # a fold
        at = np.arange(width, dtype=np.float32) - rng.uniform(0.2, 0.8) * width
        picture = picture * (1 - 0.3 * np.exp(-((at / rng.uniform(2, 12)) ** 2)))[None, :, None]
    if rng.random() < 0.25:
        middle = picture.mean()
        picture = middle + (picture - middle) * rng.uniform(0.45, 0.95)
    if rng.random() < 0.35:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32, copy=False)
    if rng.random() < 0.4:
        noise = rng.standard_normal((height, width, 1)).astype(np.float32) * np.float32(rng.uniform(1, 9))
        picture = picture + noise
    if rng.random() < 0.08:  # fax and copier
        grey = picture.mean(axis=2, keepdims=True)
        picture = np.repeat(np.clip((grey - grey.mean() * 0.9) * rng.uniform(2, 5) + 128, 0, 255), 3, axis=2)
    return np.clip(picture, 0, 255).astype(np.uint8)


def speckle(rng: np.random.Generator, picture: Picture) -> Picture:
    """Return the page with dirt: specks in a part of it, and blots along an edge, as of copies and old prints."""
    height, width = picture.shape[:2]
    dirt = np.zeros((height, width), bool)
    if rng.random() < 0.7:
        place = clouds(rng, height, width, 150) > rng.uniform(-1, 1.5)
        dirt |= place & (clouds(rng, height, width, int(rng.integers(1, 3))) > rng.uniform(1.8, 3.0))
    if rng.random() < 0.5:
        shape = (height, 1) if rng.random() < 0.5 else (1, width)
        across = np.abs(np.linspace(-1, 1, max(shape), dtype=np.float32)).reshape(shape)
        dirt |= clouds(rng, height, width, int(rng.integers(4, 40))) > (1 - across) * rng.uniform(15, 50) + 0.3
    return np.where(dirt[..., None], picture * np.float32(rng.uniform(0, 0.5)), picture)


def finish(
    rng: np.random.Generator, sheet: Sheet, below: Sheet | None = None
) -> tuple[npt.NDArray[np.uint8], list[Line]]:
    """Return the picture of a written sheet, uint8 (H, W, 3) BGR, and its lines in the picture's pixels.

    What is written on the sheet `below` shows through thin paper, legible and without being a line.
    """
    picture, lines = print_on(rng, make_paper(rng, sheet.height, sheet.width), sheet, below), sheet.lines
    if rng.random() < 0.2:
        picture = speckle(rng, picture)
    if rng.random() < 0.35:
        picture, lines = curl(rng, picture, lines)
    if rng.random() < 0.5:
        picture, lines = lay_on_desk(rng, picture, lines)
    return photograph(rng, picture), lines
