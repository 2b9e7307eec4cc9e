"""Show that memory does not grow: resident memory while one detector sees pictures of varied sizes.

    python scripts/measure_memory.py [--pictures N] [--short-side N] [--weights FILE]

Sizes are drawn at random, sides from one to three times the shorter; pictures are noise with lines of text-like boxes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dbcpu import load_detector
from dbcpu.engine.memory import give_back, keep_freed_memory

STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--short-side", type=int, default=320)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command line does, and `give_back`
    detector = load_detector(arguments.weights, short_side=arguments.short_side)
    random = np.random.default_rng(0)
    sizes = set()
    for count in range(1, arguments.pictures + 1):
        picture = draw(random)
        give_back(picture.nbytes)
        result = detector.detect(picture)
        sizes.add((result.settings["network_width"], result.settings["network_height"]))
        if count % max(1, arguments.pictures // STEPS) == 0:
            print(f"{count:5} pictures, {len(sizes):3} sizes of input: {resident('VmRSS'):6.0f} MiB", flush=True)
    print(f"peak {resident('VmHWM'):.0f} MiB")


def draw(random: np.random.Generator) -> np.ndarray:
    short = int(random.integers(200, 800))
    sides = [short, int(short * random.uniform(1, 3))]
    height, width = random.permutation(sides)
    page = random.integers(200, 256, (height, width, 3), dtype=np.uint8)
    for _ in range(int(random.integers(0, 60))):
        top, left = random.integers(0, height), random.integers(0, width)
        page[top : top + 12, left : left + int(random.integers(20, 200))] = random.integers(0, 80)
    return page


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024


if __name__ == "__main__":
    main()
