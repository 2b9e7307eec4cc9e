"""State what bf16 changes: probabilities and F-measure on sets of real pages, beside fp32.

    python scripts/compare_precision.py ../shared/data/test/* [--weights FILE]

F is that of `dbcpu evaluate`, one to one at IoU 0.5.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dbcpu import load_detector
from dbcpu.engine.threads import available_cpus
from dbcpu.evaluate import Tally, measure_overlaps, score_page
from dbcpu.image import read_image
from dbcpu.truth import Detection, read_truth

if TYPE_CHECKING:
    from dbcpu.detector import Detector
    from dbcpu.truth import TruthSet

HEADER = "set            pages | F fp32   bf16 | change of the probability: mean  99.9 %   largest | that cross"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truths", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    detectors = [load_detector(arguments.weights, precision=p, threads=available_cpus()) for p in ("fp32", "bf16")]
    print(HEADER)
    for folder in arguments.truths:
        print(compare(read_truth(folder), detectors), flush=True)


def compare(truth: TruthSet, detectors: list[Detector]) -> str:
    tallies: list[list[Tally]] = [[], []]
    changes, sides = [], []
    for stem, instances in truth.pages.items():
        source = next(read_image(truth.picture(stem), ignore_exif=True))
        maps = []
        for detector, pages in zip(detectors, tallies, strict=True):
            result, probability_map = detector.detect_with_map(source)
            found = [Detection(polygon=instance.polygon, score=instance.score) for instance in result.instances]
            pages.append(score_page(measure_overlaps(instances, found), "iou").tally)
            maps.append(probability_map)
        changes.append(np.abs(maps[0] - maps[1]).ravel())
        threshold = detectors[0].config.postprocess.binarize_threshold
        sides.append(np.mean((maps[0] > threshold) != (maps[1] > threshold)))
    change = np.concatenate(changes)
    f = [sum(pages, start=Tally()).f for pages in tallies]
    return (
        f"{truth.name:14} {len(truth.pages):5} | {f[0]:.4f} {f[1]:.4f} | {change.mean():31.5f} "
        f"{np.quantile(change, 0.999):7.4f} {change.max():9.4f} | {np.mean(sides):.5f}"
    )


if __name__ == "__main__":
    main()
