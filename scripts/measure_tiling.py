"""Measure what reading in tiles gains and costs, on sheets composed of test pages and on enlarged ones.

    python -m scripts.measure_tiling ../shared [SET...] [--across 3] [--tile N]

A sheet has N x N pages of a set beside each other as they are, which makes their letters N times lower for the network.
An enlarged page is one page N times larger, whose letters stay as tall as they were. Both have the truth of the set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dbcpu import load_detector
from dbcpu.engine.threads import available_cpus
from dbcpu.evaluate import measure_overlaps, score_page
from dbcpu.image import read_image
from dbcpu.truth import Detection, TruthInstance, read_truth

if TYPE_CHECKING:
    import numpy.typing as npt

    from dbcpu import Detector
    from dbcpu.truth import TruthSet

    Page = tuple[npt.NDArray[np.uint8], list[TruthInstance]]

SETS = ("tapuscorpus", "docbank", "funsd", "sroie", "ndl_docl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET")
    parser.add_argument("--across", type=int, default=3, metavar="N")
    parser.add_argument("--tile", type=float, help="read tiled pages so many times larger (default: as --tile auto)")
    arguments = parser.parse_args()
    detectors = [load_detector(threads=available_cpus(), tile=tile) for tile in ("off", arguments.tile or "auto")]
    print("| page | pixels | factor | F whole: IoU, DetEval | F tiled: IoU, DetEval | seconds whole, tiled |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.sets:
        truth = read_truth(arguments.shared / "data" / "test" / name)
        across = arguments.across
        for what, page in (
            (f"{name}, {across} x {across} pages", sheet(truth, across)),
            (f"{name}, {across} times larger", enlarged(truth, across)),
        ):
            print(row(what, page, *detectors), flush=True)


def read(truth: TruthSet, stem: str) -> Page:
    (source,) = read_image(truth.picture(stem), ignore_exif=True)
    return source.pixels_bgr, list(truth.pages[stem])


def moved(instance: TruthInstance, scale: float, left: int, top: int) -> TruthInstance:
    return TruthInstance(polygon=instance.polygon * scale + (left, top), ignored=instance.ignored)


def sheet(truth: TruthSet, across: int) -> Page:
    stems = list(truth.pages)
    pages = [read(truth, stems[index % len(stems)]) for index in range(across**2)]
    height, width = (max(pixels.shape[side] for pixels, _ in pages) for side in (0, 1))
    paper = np.full((height * across, width * across, 3), 255, np.uint8)
    instances = []
    for index, (pixels, of_page) in enumerate(pages):
        top, left = index // across * height, index % across * width
        paper[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        instances += [moved(instance, 1, left, top) for instance in of_page]
    return paper, instances


def enlarged(truth: TruthSet, times: int) -> Page:
    pixels, instances = read(truth, next(iter(truth.pages)))
    larger = cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.uint8), [moved(instance, times, 0, 0) for instance in instances]


def row(what: str, page: Page, *detectors: Detector) -> str:
    pixels, truths = page
    scores, seconds, factor = [], [], "1"
    for detector in detectors:
        started = time.perf_counter()
        result = detector.detect(pixels)
        seconds.append(time.perf_counter() - started)
        found = [Detection(polygon=instance.polygon) for instance in result.instances]
        overlaps = measure_overlaps(truths, found)
        scores.append(", ".join(f"{score_page(overlaps, protocol).tally.f:.2f}" for protocol in ("iou", "deteval")))
        if result.settings["tile"] != "off":
            factor = str(result.settings["tile"])
    size = f"{pixels.shape[1]}x{pixels.shape[0]}"
    return f"| {what} | {size} | {factor} | {' | '.join(scores)} | {seconds[0]:.1f}, {seconds[1]:.1f} |"


if __name__ == "__main__":
    main()
