"""Measure a stream of real pages: pages per second, how busy the cores are, and CPU time outside the network.

    python -m scripts.bench_stream ../shared/data/test [--weights FILE] [--pages N] [--precision P] [--short-side N]

Three ways by turns, on the same pages in the same order: one after the other and `detect_batch`, both in one process
with as many threads as there are cores, and as many processes with one thread each as there are cores. Busy is the CPU
time of all processes over that of the cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcpu.engine.threads import available_cpus

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from dbcpu.detector import Detector

ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--short-side", type=int, default=736, help="as in scripts.bench (default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    found = sorted(path for path in arguments.folder.rglob("images/*") if path.is_file())
    pages = found[:: max(1, len(found) // arguments.pages)][: arguments.pages]
    cores = available_cpus()
    settings = {"precision": arguments.precision, "short_side": arguments.short_side}
    context = multiprocessing.get_context("spawn")
    print(f"{len(pages)} of {len(found)} pages, {cores} cores, {settings}")
    ways = {"one after the other": (1, False), "detect_batch": (1, True), f"{cores} processes": (cores, False)}
    for _ in range(ROUNDS):
        for name, (count, batch) in ways.items():
            started = context.Barrier(count + 1)
            results = context.SimpleQueue()
            work = (pages, arguments.weights, settings, cores // count, batch, started, results)
            processes = [context.Process(target=run, args=(range(i, len(pages), count), *work)) for i in range(count)]
            for process in processes:
                process.start()
            started.wait()
            before = time.perf_counter()
            seconds = [results.get() for _ in processes]
            wall = time.perf_counter() - before
            for process in processes:
                process.join()
            print(f"{name:20} {len(pages) / wall:6.2f} pages/s, busy {sum(seconds) / wall / cores:.2f}", flush=True)
    stages = measure_stages(load(arguments.weights, settings, 1), pages)
    print("CPU ms a page, median and mean: " + ", ".join(f"{k} {m:.1f} {a:.1f}" for k, (m, a) in stages.items()))


def load(weights: Path | None, settings: dict[str, Any], threads: int) -> Detector:
    from dbcpu import load_detector
    from dbcpu.engine.memory import keep_freed_memory

    keep_freed_memory()  # as the command line does
    return load_detector(weights, threads=threads, **settings)


def run(
    share: range,
    pages: list[Path],
    weights: Path | None,
    settings: dict[str, Any],
    threads: int,
    batch: bool,
    started: Barrier,
    results: Any,
) -> None:
    """Detect on a share of the pages, and put this process' CPU seconds into `results`."""
    detector = load(weights, settings, threads)
    mine = [pages[index] for index in share]
    detector.detect(mine[0])
    started.wait()
    before = time.process_time()
    if batch:
        detector.detect_batch(mine)
    else:
        for page in mine:
            detector.detect(page)
    results.put(time.process_time() - before)


def measure_stages(detector: Detector, pages: list[Path]) -> dict[str, tuple[float, float]]:
    """Return the median and the mean CPU milliseconds of each stage, in one thread."""
    from dbcpu.image import read_image

    times: dict[str, list[float]] = {"read": [], "resize and normalise": [], "network": [], "post-process": []}
    for page in pages:
        marks = [time.process_time()]
        source = next(read_image(page))
        marks.append(time.process_time())
        network_input = detector.preprocess(source)
        marks.append(time.process_time())
        probability_map = detector.infer(network_input)
        marks.append(time.process_time())
        detector.postprocess(source, network_input, probability_map)
        marks.append(time.process_time())
        for stage, first, last in zip(times.values(), marks, marks[1:], strict=False):
            stage.append((last - first) * 1e3)
    return {name: (statistics.median(stage), statistics.fmean(stage)) for name, stage in times.items()}


if __name__ == "__main__":
    main()
