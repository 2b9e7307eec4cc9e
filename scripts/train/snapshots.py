"""How cameras take a scene: out of focus, shaken, with too few pixels; what can still be read then."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from scripts.train.boards import LEGIBLE, leave_illegible, reduce
from scripts.train.truth import Line, Page
from scripts.train.wear import Picture, photograph


def take(rng: np.random.Generator, scene: Picture, lines: Sequence[Line], flawed: float, soft: float = 0.0) -> Page:
    """Return the photograph of a scene; what cannot be read on it is left out of the loss.

    Args:
        rng: source of chance.
        scene: as it is, float32 (H, W, 3) BGR.
        lines: that are in it.
        flawed: the share of photographs that are shaken, and of those that are coarse.
        soft: the share of those that are out of focus as a whole.
    """
    lowest = LEGIBLE
    if rng.random() < soft:
        blur = rng.uniform(0.5, 2.2)
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), blur), np.float32)
        lowest = max(lowest, 6 * blur)
    if rng.random() < flawed:
        reach = int(rng.integers(1, 4))
        scene = shake(rng, scene, reach)
        lowest += 2 * reach
    if rng.random() < flawed:
        factor = rng.uniform(1.3, 2.5)
        scene = coarsen(scene, factor)
        lowest = max(lowest, LEGIBLE * factor)
    page = leave_illegible((photograph(rng, scene), list(lines)), lowest)
    if rng.random() < 0.2:
        page = leave_illegible(reduce(page, rng.uniform(0.4, 0.8)))
    return page


def coarsen(scene: Picture, factor: float, enlarge: int = cv2.INTER_CUBIC) -> Picture:
    """Return the scene as a lesser camera sees it, or a picture enlarged by a factor, as OpenCV's `enlarge` does."""
    height, width = scene.shape[:2]
    small = cv2.resize(scene, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=enlarge), np.float32)


def shake(rng: np.random.Generator, scene: Picture, reach: int) -> Picture:
    """Return the scene as a camera sees it that moves meanwhile, by `reach` pixels to both sides."""
    track = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    far = np.round(reach * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    cv2.line(track, (reach - far).tolist(), (reach + far).tolist(), 1.0)
    return np.asarray(cv2.filter2D(scene, -1, track / track.sum()), np.float32)
