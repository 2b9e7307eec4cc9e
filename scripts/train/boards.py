"""Boards, posters, screens and papers in a scene: whole pages of any kind, reduced, framed and seen at an angle."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.geometry import Size
from scripts.train.targets import line_height
from scripts.train.truth import IGNORED, Line, Page
from scripts.train.wear import Picture, lay

LEGIBLE = 7.0  # pixels, height of the lowest lines that can be read


def reduce(page: Page, ratio: float) -> Page:
    """Return a page at `ratio` (up to 1) times its size; lines that become too low to read are left out of the loss."""
    picture = cv2.resize(page[0], None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    lines = []
    for line in page[1]:
        polygon = line.polygon * np.float32(ratio)
        lines.append(Line(polygon, line.text if line_height(polygon) >= LEGIBLE else IGNORED))
    return picture.astype(np.uint8, copy=False), lines


def mount(rng: np.random.Generator, page: Page, frame: Size) -> Page:
    """Return a page as large as it is seen, half to nearly all of the frame, at times with an edge around it."""
    share = rng.uniform(0.5, 0.95)
    height, width = page[0].shape[:2]
    picture, lines = reduce(page, min(1.0, share * frame.height / height, share * frame.width / width))
    edge = int(rng.integers(2, 25)) if rng.random() < 0.6 else 0
    colour = rng.integers(0, 256, 3).tolist()
    framed = cv2.copyMakeBorder(picture, *(edge,) * 4, cv2.BORDER_CONSTANT, value=colour)
    return framed.astype(np.uint8, copy=False), [Line(line.polygon + np.float32(edge), line.text) for line in lines]


def hang(
    rng: np.random.Generator, scene: Picture, picture: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64]
) -> Picture:
    """Return the scene with a mounted picture where the homography (3, 3) takes it: lit, dim, or with a reflection."""
    light = np.float32(rng.uniform(0.35, 1.15)) * (1 - rng.uniform(0, 0.15, 3).astype(np.float32))
    hung = lay(picture.astype(np.float32) * light, matrix, scene)
    if rng.random() < 0.2:  # a sheet of glass gives back what is opposite
        cover = cv2.warpPerspective(np.ones(picture.shape, np.float32), matrix, scene.shape[1::-1])
        hung += cover * np.float32(rng.uniform(0.05, 0.3)) * cv2.GaussianBlur(scene[:, ::-1], (0, 0), 2)
    return np.minimum(hung, 255)
