"""Photographs of streets, halls and shops with posters and boards on their walls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dbcpu.geometry import Size
from scripts.train.boards import put_up
from scripts.train.scenes import cross, cut_view, make_background
from scripts.train.snapshots import take
from scripts.train.truth import Line, Page


def street_page(rng: np.random.Generator, posters: Sequence[Page], photographs: Sequence[Path]) -> Page:
    """Return a picture, uint8 (H, W, 3) BGR, of a view with posters in it where they find a place, and their lines.

    Without photographs the view is a drawn one. Half are out of focus, one of four is shaken, one of four coarse.
    """
    frame = Size(int(rng.integers(600, 850)), int(rng.integers(700, 1200)))
    if photographs:
        scene = cut_view(rng, photographs[int(rng.integers(len(photographs)))], *frame)
    else:
        scene = make_background(rng, *frame)
    scene *= np.float32(rng.uniform(0.4, 1.1))  # what hangs in it may have light of its own
    taken = np.zeros(frame, np.uint8)
    lines: list[Line] = []
    for poster in posters:
        scene, written = put_up(rng, scene, taken, poster, rng.uniform(0.25, 0.9), "wall")
        lines += written
    if rng.random() < 0.25:
        cross(rng, scene)
    return take(rng, scene * np.float32(rng.uniform(0.75, 1.05)), lines, flawed=0.25, soft=0.5)
