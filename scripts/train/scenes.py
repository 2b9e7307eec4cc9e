"""What is behind signs: pieces of photographs, drawn scenes without text, grounds of advertisements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.errors import UsageError
from scripts.train.truth import rectangle
from scripts.train.wear import Picture, clouds

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp")
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


def read_photograph(path: Path, flags: int = cv2.IMREAD_COLOR) -> npt.NDArray[np.uint8]:
    """Return a picture, uint8 (H, W, 3) BGR, or as OpenCV's `flags` ask for it.

    Raises:
        UsageError: it cannot be read.
    """
    photograph = cv2.imread(str(path), flags)
    if photograph is None:
        raise UsageError("cannot read the photograph", where=path)
    return photograph.astype(np.uint8, copy=False)


def cut_view(rng: np.random.Generator, path: Path, height: int, width: int) -> Picture:
    """Return a piece of a photograph as it is, at times mirrored.

    Raises:
        UsageError: the picture cannot be read.
    """
    photograph = read_photograph(path)
    full_height, full_width = photograph.shape[:2]
    share = rng.uniform(0.25, 1.0) * min(full_height / height, full_width / width)
    high, wide = int(share * height), int(share * width)
    top, left = rng.integers(full_height - high + 1), rng.integers(full_width - wide + 1)
    piece = cv2.resize(photograph[top : top + high, left : left + wide], (width, height), interpolation=cv2.INTER_AREA)
    return piece[:, :: rng.choice([-1, 1])].astype(np.float32)


def cut_photograph(rng: np.random.Generator, path: Path, height: int, width: int) -> Picture:
    """Return a piece of a photograph, at times mirrored, grey, darker, of other colours, or with clutter.

    Raises:
        UsageError: the picture cannot be read.
    """
    scene = cut_view(rng, path, height, width)
    grey = scene.mean(axis=2, keepdims=True)
    scene = grey + (scene - grey) * (0.0 if rng.random() < 0.1 else rng.uniform(0.2, 1.1))
    if rng.random() < 0.3:
        scene = scene[..., rng.permutation(3)]
    scene = np.ascontiguousarray(scene * np.float32(rng.uniform(0.3, 1.2)), np.float32)
    if rng.random() < 0.3:
        clutter(rng, scene, int(rng.integers(1, 10)), saturation=rng.uniform(0.05, 1))
    return scene


def ramp(height: int) -> Picture:
    """Return 0 at the top to 1 at the bottom, float32 (height, 1, 1)."""
    return np.linspace(0, 1, height, dtype=np.float32)[:, None, None]


def make_background(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Return a scene without text: gradients, clouds, shapes and their perspective, grain; more grey than bright."""
    saturation = 1.0 if rng.random() < 0.35 else rng.uniform(0.05, 0.5)
    down = ramp(height)
    scene = np.repeat(_colour(rng, saturation) * (1 - down) + _colour(rng, saturation) * down, width, axis=1)
    for cell in (200, 40, 8):
        tint = rng.uniform(0, 25) * (1 - saturation) + rng.uniform(0, 25, 3) * saturation
        scene += clouds(rng, height, width, cell)[..., None] * tint.astype(np.float32)
    clutter(rng, scene, int(rng.integers(3, 30)), saturation)
    if rng.random() < 0.5:
        corners = rectangle(0, 0, width, height)
        bent = corners + rng.normal(0, 0.15, (4, 2)) * (width, height)
        matrix = cv2.getPerspectiveTransform(corners, bent.astype(np.float32))
        scene = cv2.warpPerspective(scene, matrix, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    return cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 3)).astype(np.float32)


def clutter(rng: np.random.Generator, scene: Picture, count: int, saturation: float) -> None:
    """Draw things without text into a scene: plain shapes, bars, windows, foliage, grilles, lamps."""
    height, width = scene.shape[:2]
    for _ in range(count):
        corner, size = (rng.uniform(-0.1, 1.1, 2) * (width, height)).astype(int), rng.uniform(8, 300, 2).astype(int)
        SHAPES[rng.integers(len(SHAPES))](rng, scene, corner, size, _colour(rng, saturation))


def cross(rng: np.random.Generator, scene: Picture) -> None:
    """Draw poles, wires, straps or twigs in front of all that is in a scene; what they cross can still be read."""
    height, width = scene.shape[:2]
    for _ in range(rng.integers(1, 7)):
        middle, angle = rng.random(2) * (width, height), rng.uniform(0, np.pi)
        along = np.array([np.cos(angle), np.sin(angle)]) * (width + height) * rng.uniform(0.05, 1)
        bend = rng.normal(0, 0.05, 2) * (width, height) * rng.integers(2)
        path = np.stack([middle - along, middle + bend, middle + along]).astype(np.int32)
        thickness = max(int(np.exp(rng.uniform(0.7, 3.4))), 1)
        cv2.polylines(scene, [path], False, _colour(rng, rng.random()).tolist(), thickness, cv2.LINE_AA)


def _colour(rng: np.random.Generator, saturation: float) -> Colour:
    drawn = rng.uniform(0, 255, 3)
    return np.asarray(drawn.mean() + (drawn - drawn.mean()) * saturation, np.float32)


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


def _grille(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    """Draw slanting bars, at times crossed: grilles, vents, fences, scaffolds, shutters seen from a side."""
    pitch = rng.uniform(4, 30)
    thickness = max(int(pitch * rng.uniform(0.1, 0.6)), 1)
    angle = rng.uniform(0, np.pi)
    for turn in (0.0, rng.uniform(0.3, 0.5) * np.pi)[: rng.integers(1, 3)]:
        along = np.array([np.cos(angle + turn), np.sin(angle + turn)])
        across = np.array([-along[1], along[0]])
        for at in np.arange(-size[1] / 2, size[1] / 2, pitch):
            ends = corner + across * at + np.outer([-0.5, 0.5], along) * size[0]
            start, end = ends.astype(int).tolist()
            cv2.line(scene, start, end, colour.tolist(), thickness, cv2.LINE_AA)


def _lamps(rng: np.random.Generator, scene: Picture, corner: Place, size: Place, colour: Colour) -> None:
    """Draw lamps or reflections of light, in a row or scattered, with their glow; at times nothing but that."""
    count, radius = int(rng.integers(1, 14)), rng.uniform(1.5, 12)
    places = corner + (np.linspace(0, 1, count)[:, None] if rng.random() < 0.5 else rng.random((count, 2))) * size
    lamps = np.zeros(scene.shape[:2], np.float32)
    axes = np.maximum(radius * rng.uniform(0.5, 1.5, 2), 1).astype(int).tolist()
    for place in places.astype(int).tolist():
        cv2.ellipse(lamps, place, axes, 0, 0, 360, 1.0, -1)
    glow = cv2.GaussianBlur(lamps, (0, 0), radius * rng.uniform(0.3, 2))
    shine = np.maximum(glow, lamps) if rng.random() < 0.5 else glow
    scene += shine[..., None] * (np.maximum(colour, rng.uniform(180, 255)) - scene)


SHAPES = (_plain, _plain, _bars, _patch, _windows, _foliage, _grille, _lamps)


def make_advert(rng: np.random.Generator, photographs: Sequence[Path], height: int, width: int) -> Picture:
    """Return a plain ground, most often a light one, with some cuts of photographs on it."""
    ground = rng.uniform(200, 255, 3) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    scene = np.repeat((ground + ramp(height) * rng.normal(0, 30, 3)).astype(np.float32), width, axis=1)
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
