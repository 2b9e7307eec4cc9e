"""Time post-processing against a plain transcription of the original code's loop.

    python scripts/bench_postprocess.py [--rounds N] [--map MAP.png]

Both run by turns on the same maps; the numbers are medians of the CPU time of one thread, so that other work on the
machine disturbs them less. "contours" is the part that is `cv2.findContours` alone, the same work on both sides.

The maps: text2 of the golden cases; where ../shared is there, a page drawn from the truth of its densest DocBank page,
every word a kernel shrunk by r = 0.4 at the resolution of short side 736, with soft edges (drawn, not found by a
network); and any probability map that `dbcpu detect --save-map` wrote.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dbcpu.config import PostprocessConfig, PreprocessConfig
from dbcpu.geometry import Size
from dbcpu.postprocess import detect_text
from dbcpu.preprocess import content_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import numpy.typing as npt

ROOT = Path(__file__).parents[1]
DOCBANK = ROOT.parent / "shared" / "data" / "test" / "docbank"
SHRINK = 0.4
HEADER = "map                 shape    candidates found | us/candidate: plain  ours contours | ratio  largest diff"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--map", type=Path, action="append", default=[], help="an 8-bit probability map")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with np.load(ROOT / "tests" / "data" / "golden" / "postprocess_maps.npz") as maps:
        pages = {"golden text2": maps["text2"]}
    if DOCBANK.is_dir():
        pages["drawn DocBank page"] = draw_densest_page()
    for path in arguments.map:
        pages[path.name] = read_picture(path)[:, :, 0].astype(np.float32) / 255
    print(HEADER)
    for name, probability_map in pages.items():
        for shape in ("quad", "polygon"):
            print(compare(name, probability_map, PostprocessConfig(shape=shape), arguments.rounds))


def load_plain_loop() -> ModuleType:
    path = ROOT / "tests" / "reference" / "postprocess.py"
    spec = importlib.util.spec_from_file_location("plain_loop", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_picture(path: Path) -> npt.NDArray[Any]:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{path}: not a picture")
    return picture


def draw_densest_page() -> npt.NDArray[np.float32]:
    truth = max((DOCBANK / "gts").iterdir(), key=lambda path: len(path.read_text(encoding="utf-8").splitlines()))
    (picture,) = (DOCBANK / "images").glob(truth.stem.removeprefix("gt_") + ".*")
    height, width = read_picture(picture).shape[:2]
    size = content_size(PreprocessConfig(), Size(height, width))
    page = np.zeros(size, np.float32)
    for line in truth.read_text(encoding="utf-8").splitlines():
        word = np.array(line.split(",")[:8], np.float64).reshape(4, 2) * [size.width / width, size.height / height]
        sides = np.ptp(word, axis=0)
        inset = sides.prod() * (1 - SHRINK**2) / (2 * sides.sum())
        kernel = np.stack([word.min(axis=0) + inset, word.max(axis=0) - inset])
        first, last = (kernel * 8).round().astype(int).tolist()  # eighths of a pixel
        cv2.rectangle(page, first, last, 0.95, cv2.FILLED, cv2.LINE_AA, 3)
    return np.asarray(cv2.GaussianBlur(page, (0, 0), 1), np.float32)


def compare(name: str, probability_map: npt.NDArray[np.float32], config: PostprocessConfig, rounds: int) -> str:
    plain_loop = load_plain_loop()
    image_size = Size(*(2 * side for side in probability_map.shape))
    is_kernel = (probability_map > np.float32(config.binarize_threshold)).astype(np.uint8)
    competitors: list[Callable[[], Any]] = [
        lambda: plain_loop.detect_text(probability_map, image_size, config),
        lambda: detect_text(probability_map, image_size, config),
        lambda: cv2.findContours(is_kernel, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE),
    ]
    (expected, _), found, (contours, _) = (competitor() for competitor in competitors)
    if [len(polygon) for polygon, _ in expected] != [len(instance.polygon) for instance in found.instances]:
        raise SystemExit(f"{name}: the two find different polygons")
    pairs = zip(expected, found.instances, strict=True)
    largest = max((float(np.abs(polygon - instance.polygon).max()) for (polygon, _), instance in pairs), default=0.0)
    seconds: list[list[float]] = [[] for _ in competitors]
    for _ in range(rounds):
        for competitor, times in zip(competitors, seconds, strict=True):
            started = time.thread_time()
            competitor()
            times.append(time.thread_time() - started)
    candidates = min(len(contours), config.max_candidates)
    plain, ours, search = (statistics.median(times) * 1e6 / max(candidates, 1) for times in seconds)
    counted = f"{name:19} {config.shape:8} {candidates:10} {len(found.instances):5}"
    return f"{counted} | {plain:19.1f} {ours:5.1f} {search:8.1f} | {plain / ours:5.2f} {largest:13g}"


if __name__ == "__main__":
    main()
