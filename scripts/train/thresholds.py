"""Choose the thresholds of a trained checkpoint: F on held-back pages for a grid of them, the best last.

    python -m scripts.train.thresholds CANDIDATE --real ../shared/data/train --pool-validation POOL/form POOL/sign ...

CANDIDATE is what `scripts.train.ship` wrote: its size, its unclip ratio and its way from kernels to quads are used.
F is the mean of the two protocols of `dbcpu evaluate` (one asks for lines as the truth has them, the other takes a line
in pieces, at a discount), or, with `--compare-by ../shared/score.py`, what the model card compares models by: that
script's `iou_f` on the real pages and its `cov_f` on the others. The mean is over the sets, each counting the same.
"""

from __future__ import annotations

import argparse
import itertools
import runpy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from dbcpu import Detector, load_detector
from dbcpu.evaluate import Protocol, sweep_score_threshold
from dbcpu.image import SourceImage
from dbcpu.postprocess import detect_text
from dbcpu.result import TextInstance
from scripts.train.command import errors_told
from scripts.train.sources import split_pages
from scripts.train.train import REAL_SHARES
from scripts.train.truth import Line, PageFile, list_pages, read_page
from scripts.train.validate import MAX_SHORT_SIDE, measure_page

BINARIZE = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
SCORES = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


Found = tuple[list[Line], list[TextInstance]]  # a page's lines and what was found
Cut = tuple[float, float]  # an unclip ratio and a threshold of `BINARIZE`
Judge = Callable[[str, Sequence[Found]], list[float]]  # F of a set, of that name, for each threshold of `SCORES`


def find(detector: Detector, page: PageFile, cuts: Sequence[Cut]) -> list[Found]:
    """Return a page's lines and what is found of them, for each of the cuts."""
    image, lines = read_page(page, MAX_SHORT_SIDE)
    network_input = detector.preprocess(SourceImage(pixels_bgr=image, name=page.image.name))
    with torch.inference_mode():
        probability_map = detector.infer(network_input)
    found = []
    for unclip, binarize in cuts:
        config = replace(
            detector.config.postprocess,
            unclip_ratio=unclip,
            binarize_threshold=binarize,
            score_threshold=min(SCORES),
        )
        found.append((lines, list(detect_text(probability_map, network_input.image_size, config).instances)))
    return found


def judge_by_protocols(name: str, pages: Sequence[Found]) -> list[float]:
    """Be the `Judge` of the two protocols, whatever the set."""
    del name
    overlaps = [measure_page(*page) for page in pages]
    sweeps = [sweep_score_threshold(overlaps, protocol, SCORES) for protocol in get_args(Protocol)]
    return [sum(values) / len(values) for values in zip(*sweeps, strict=True)]


def judge_by(script: Path) -> Judge:
    """Return the judge that asks `score.py`, whose functions `poly` and `score` are as `../shared` has them."""
    functions = runpy.run_path(str(script))
    poly, score = functions["poly"], functions["score"]

    def judge(name: str, pages: Sequence[Found]) -> list[float]:
        truths = [[(poly(line.polygon), line.ignored) for line in lines] for lines, _ in pages]
        found = [[(poly(instance.polygon), instance.score) for instance in instances] for _, instances in pages]
        measure = "iou_f" if name in REAL_SHARES else "cov_f"
        return [
            score([(truth, [p for p, s in f if s >= least]) for truth, f in zip(truths, found, strict=True)])[measure]
            for least in SCORES
        ]

    return judge


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--pool-validation", type=Path, nargs="+", required=True, help="each a set of its own")
    parser.add_argument("--unclip-ratio", type=float, nargs="+", help="others than the candidate's, each with the grid")
    parser.add_argument("--compare-by", type=Path, metavar="SCRIPT", help="score.py, see above; default: two protocols")
    arguments = parser.parse_args()
    judge = judge_by(arguments.compare_by) if arguments.compare_by else judge_by_protocols
    detector = load_detector(arguments.candidate)
    ratios = arguments.unclip_ratio or [detector.config.postprocess.unclip_ratio]
    cuts = list(itertools.product(ratios, BINARIZE))
    sets = {name: split_pages(list_pages(arguments.real / name))[1] for name in REAL_SHARES}
    sets |= {folder.name: list_pages(folder) for folder in arguments.pool_validation}
    scores: dict[tuple[float, float, float], dict[str, float]] = {
        t: {} for t in itertools.product(ratios, BINARIZE, SCORES)
    }
    for name, pages in sets.items():
        by_page = [find(detector, page, cuts) for page in pages]
        for (unclip, binarize), found in zip(cuts, zip(*by_page, strict=True), strict=True):
            for score, f in zip(SCORES, judge(name, found), strict=True):
                scores[unclip, binarize, score][name] = f
    means = {thresholds: sum(each.values()) / len(each) for thresholds, each in scores.items()}
    for thresholds in sorted(scores, key=means.__getitem__):
        unclip, binarize, score = thresholds
        each = " ".join(f"{name} {f:.3f}" for name, f in scores[thresholds].items())
        print(f"unclip {unclip:g} binarize {binarize:g} score {score:g}: mean {means[thresholds]:.4f}  {each}")


if __name__ == "__main__":
    main()
