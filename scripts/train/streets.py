"""Photographs of streets, halls and shops with posters and boards on their walls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dbcpu.geometry import Size
from scripts.train.boards import hang, mount
from scripts.train.planes import find_place
from scripts.train.scenes import cut_view, make_background
from scripts.train.snapshots import take
from scripts.train.truth import Line, Page, move_lines


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
        picture, written = mount(rng, poster, frame, share=rng.uniform(0.25, 0.9))
        matrix = find_place(rng, taken, Size(*picture.shape[:2]), "wall")
        if matrix is not None:
            scene = hang(rng, scene, picture, matrix)
            lines += move_lines(written, matrix)
    return take(rng, scene * np.float32(rng.uniform(0.75, 1.05)), lines, flawed=0.25, soft=0.5)
