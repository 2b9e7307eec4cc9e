"""Put pictures together that have no text and much that is taken for it: what is behind signs, for `--photographs`.

    python -m scripts.train.backgrounds collages TEXTURES --out PHOTOGRAPHS --count 260
    python -m scripts.train.backgrounds shops CUTOUTS --out PHOTOGRAPHS --count 70

TEXTURES: a folder of walls, doors, windows, grilles, floors, lamps, as of games. CUTOUTS: one of things with a
transparent ground, which are shown as shops show them. Folders are read at any depth; pictures with text must be taken
out before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.errors import UsageError
from scripts.train.command import errors_told
from scripts.train.scenes import find_photographs, read_photograph
from scripts.train.truth import rectangle
from scripts.train.wear import lay

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) BGR


def make_collage(rng: np.random.Generator, textures: Sequence[Path]) -> Pixels:
    """Return a wall of one texture with pieces of others on it, at times in rows, seen from somewhat aside."""

    def draw() -> Pixels:
        return read_photograph(textures[int(rng.integers(len(textures)))])

    height, width = (int(side) for side in rng.integers(700, 1400, 2))
    wall = draw()
    wall = _resize(wall, rng.uniform(150, 700) / min(wall.shape[:2]))
    times = (height // wall.shape[0] + 1, width // wall.shape[1] + 1, 1)
    picture = np.tile(wall, times)[:height, :width].astype(np.float32)
    for _ in range(rng.integers(3, 26)):
        piece = draw()
        if rng.random() < 0.3:
            piece = np.tile(piece, (1, int(rng.integers(2, 6)), 1))
        high, wide = rng.uniform(50, 460, 2).astype(int) // rng.choice([1, 1, 2])
        piece = cv2.resize(piece, (int(wide), int(high)), interpolation=cv2.INTER_AREA).astype(np.uint8)
        corners = rectangle(0, 0, wide, high)
        place = rng.uniform(-0.05, 0.95, 2) * (width, height)
        bent = corners + place + rng.normal(0, rng.choice([0.01, 0.08]), (4, 2)) * (wide, high)
        matrix = cv2.getPerspectiveTransform(corners, bent.astype(np.float32))
        picture = lay(piece * np.float32(rng.uniform(0.5, 1.2)), matrix, picture)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6)).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_shop(rng: np.random.Generator, cutouts: Sequence[Path]) -> Pixels:
    """Return one to five things on a plain ground, most often a white one.

    Raises:
        UsageError: a picture has no transparent ground.
    """
    colour = np.full(3, 255.0) if rng.random() < 0.6 else rng.uniform(0, 255, 3)
    height, width = (int(side) for side in rng.integers(560, 760, 2))
    picture = np.full((height, width, 3), colour)
    for _ in range(rng.integers(1, 6)):
        path = cutouts[int(rng.integers(len(cutouts)))]
        thing = read_photograph(path, cv2.IMREAD_UNCHANGED)
        if thing.shape[2:] != (4,):
            raise UsageError("no cut-out: the picture has no transparent ground", where=path)
        thing = _resize(thing, min(rng.uniform(0.25, 0.9) * min(height, width) / max(thing.shape[:2]), 1.4))
        top, left = (
            rng.integers(max(room - side, 1)) for room, side in zip((height, width), thing.shape, strict=False)
        )
        place = picture[top:, left:][: thing.shape[0], : thing.shape[1]]
        thing = thing[: place.shape[0], : place.shape[1]]
        place += thing[..., 3:] / 255 * (thing[..., :3] - place)
    return picture.astype(np.uint8)


def _resize(picture: Pixels, factor: float) -> Pixels:
    height, width = (max(round(side * factor), 1) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


KINDS: dict[str, Callable[[np.random.Generator, Sequence[Path]], Pixels]] = {
    "collages": make_collage,
    "shops": make_shop,
}


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("source", type=Path, help="folder of textures or cut-outs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, made if missing")
    parser.add_argument("--count", type=int, default=100, help="pictures (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=5, help="picture N depends on it and N alone (default: %(default)s)"
    )
    arguments = parser.parse_args()
    sources = find_photographs(arguments.source)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.count):
        picture = KINDS[arguments.kind](np.random.default_rng((arguments.seed, number)), sources)
        cv2.imwrite(str(arguments.out / f"{arguments.kind}_{arguments.seed}_{number:04}.jpg"), picture)


if __name__ == "__main__":
    main()
