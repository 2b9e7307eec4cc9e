"""Choose the thresholds of a trained checkpoint: F on held-back pages for a grid of them, the best last.

    python -m scripts.train.thresholds RUN/best --real ../shared/data/train --pool-validation POOL/validation

F is one-to-one at IoU 0.5, as in training, and the mean is over the sets, each counting the same.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch

from dbcpu import load_detector
from dbcpu.config import PostprocessConfig
from dbcpu.image import SourceImage
from dbcpu.postprocess import detect_text
from scripts.train.crops import CropSettings
from scripts.train.sources import split_pages
from scripts.train.train import REAL_SHARES
from scripts.train.truth import list_pages, read_page
from scripts.train.validate import MAX_SHORT_SIDE, Score, match

BINARIZE = (0.3, 0.35, 0.4, 0.45, 0.5)
SCORES = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--pool-validation", type=Path, required=True)
    arguments = parser.parse_args()
    detector = load_detector(arguments.checkpoint)
    sets = {name: split_pages(list_pages(arguments.real / name))[1] for name in REAL_SHARES}
    sets["synthetic"] = list_pages(arguments.pool_validation)
    grid = list(itertools.product(BINARIZE, SCORES))
    counts = {(name, thresholds): Score() for name in sets for thresholds in grid}
    for name, pages in sets.items():
        for page in pages:
            image, lines = read_page(page, MAX_SHORT_SIDE)
            network_input = detector.preprocess(SourceImage(pixels_bgr=image, name=page.image.name))
            with torch.inference_mode():
                probability_map = detector.infer(network_input)
            for binarize in BINARIZE:
                config = PostprocessConfig(
                    binarize_threshold=binarize, score_threshold=min(SCORES), unclip_ratio=CropSettings.unclip_ratio
                )
                found = detect_text(probability_map, network_input.image_size, config).instances
                for score in SCORES:
                    key = name, (binarize, score)
                    kept = [instance.polygon for instance in found if instance.score >= score]
                    counts[key] = counts[key].plus(match(lines, kept))
    means = {t: sum(counts[name, t].f_measure for name in sets) / len(sets) for t in grid}
    for binarize, score in sorted(grid, key=means.__getitem__):
        each = " ".join(f"{name} {counts[name, (binarize, score)].f_measure:.3f}" for name in sets)
        print(f"binarize {binarize:g} score {score:g}: mean {means[binarize, score]:.4f}  {each}")


if __name__ == "__main__":
    main()
