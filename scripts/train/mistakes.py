"""Outline what a model misses on pages, and what it takes for text there, for training to look at more often.

    python -m scripts.train.mistakes MODEL PAGES

PAGES holds `images/` and `gts/`, as `scripts.train.labelled` writes them, and receives `mistakes/`, files like those of
`gts/`. Lines count as found at the model's own thresholds, false ones from a lower score on: they are near mistakes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dbcpu import Detector, load_detector
from dbcpu.errors import UsageError
from dbcpu.evaluate import MIN_IOU
from dbcpu.image import SourceImage
from dbcpu.postprocess import detect_text
from scripts.train.command import errors_told
from scripts.train.truth import Line, PageFile, list_pages, read_page, write_lines
from scripts.train.validate import measure_page

NEAR_SCORE = 0.5  # what is no text and scores as much is a mistake, or nearly one
MIN_ON_TEXT = 0.5  # share of a region that lies on lines; with less it is no text


def find_mistakes(detector: Detector, page: PageFile) -> list[Line]:
    """Return outlines of the lines that are missed and of the regions that are no text, in pixels of the picture."""
    image, lines = read_page(page, sys.maxsize)
    network_input = detector.preprocess(SourceImage(pixels_bgr=image, name=page.image.name))
    with torch.inference_mode():
        probability_map = detector.infer(network_input)
    config = replace(detector.config.postprocess, score_threshold=NEAR_SCORE)
    instances = detect_text(probability_map, network_input.image_size, config).instances
    near = measure_page(lines, instances)
    found = near.above(detector.config.postprocess.score_threshold)
    best, on_text = np.zeros(len(lines)), np.zeros(len(instances))
    np.maximum.at(best, found.truth, found.iou * found.present[found.detection])
    np.add.at(on_text, near.detection, near.precision)
    missed = [line for line, iou, cared in zip(lines, best, near.cared, strict=True) if cared and iou <= MIN_IOU]
    false = [
        Line(np.asarray(instance.polygon, np.float32), "false")
        for instance, share, present in zip(instances, on_text, near.present, strict=True)
        if present and share < MIN_ON_TEXT
    ]
    return missed + false


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pages", type=Path, help="folder with images/ and gts/")
    arguments = parser.parse_args()
    write_mistakes(load_detector(arguments.model), arguments.pages)


def write_mistakes(detector: Detector, folder: Path) -> None:
    """Write what `find_mistakes` returns for each page of a folder, an empty file where that is nothing.

    Raises:
        UsageError: the folder has no pages, or one cannot be read.
    """
    pages = list_pages(folder)
    if not pages:
        raise UsageError("no pages: expected images/ and gts/gt_*.txt", where=folder)
    (folder / "mistakes").mkdir(exist_ok=True)
    for page in pages:
        write_lines(page.mistakes, find_mistakes(detector, page))


if __name__ == "__main__":
    main()
