"""Boards, posters, screens and papers in a scene: whole pages of any kind, reduced, framed and seen at an angle."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.geometry import Size
from scripts.train.planes import Pose, find_place
from scripts.train.targets import line_height
from scripts.train.truth import IGNORED, Line, Page, move_lines
from scripts.train.wear import Picture, lay

LEGIBLE = 11.0  # pixels, height of the lowest lines that can be read in a photograph
FAINT = 12.0  # of 255, contrast of those that can just be seen


def reduce(page: Page, ratio: float) -> Page:
    """Return a page at `ratio` (up to 1) times its size."""
    picture = cv2.resize(page[0], None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    return picture.astype(np.uint8, copy=False), [Line(line.polygon * np.float32(ratio), line.text) for line in page[1]]


def leave_illegible(page: Page, lowest: float = LEGIBLE) -> Page:
    """Return the page with lines of less than `lowest` pixels in height, or without contrast, left out of the loss."""
    smooth = cv2.GaussianBlur(page[0], (0, 0), 1.5)  # else noise is contrast

    def legible(line: Line) -> bool:
        return line_height(line.polygon) >= lowest and _contrast(smooth, line.polygon) >= FAINT

    return page[0], [line if legible(line) else Line(line.polygon, IGNORED) for line in page[1]]


def _contrast(picture: cv2.typing.MatLike, polygon: npt.NDArray[np.float32]) -> float:
    """Return how far dark and light are apart in a place of the picture, in the channel where that is most."""
    place = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(place, [polygon.astype(np.int32)], 1)
    if not place.any():
        return 0.0
    dark, light = np.percentile(picture[place > 0], (2, 98), axis=0)
    return float((light - dark).max())


def put_up(
    rng: np.random.Generator, scene: Picture, taken: npt.NDArray[np.uint8], board: Page, share: float, pose: Pose
) -> tuple[Picture, list[Line]]:
    """Return the scene with a board where it finds a place, and its lines there; none where it finds no place.

    Args:
        rng: source of chance.
        scene: float32 (H, W, 3) BGR.
        taken: where others hang, (H, W); the board's place is marked.
        board: what is on it.
        share: see `mount`.
        pose: see `place_plane`.
    """
    picture, written = mount(rng, board, Size(*taken.shape), share)
    matrix = find_place(rng, taken, Size(*picture.shape[:2]), pose)
    if matrix is None:
        return scene, []
    return hang(rng, scene, picture, matrix), move_lines(written, matrix)


def mount(rng: np.random.Generator, page: Page, frame: Size, share: float) -> Page:
    """Return a page as large as it is seen, `share` of the frame's sides at most, at times with an edge around it."""
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
