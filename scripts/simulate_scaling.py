"""Replay measured costs of pages through clusters of any size, with the engine's own rules for parcels.

    dbcpu batch scans/ results/ && python -m scripts.simulate_scaling results/manifest.jsonl

Pages are drawn from those of the manifest, with their sizes and seconds. The driver is one process: it spends
`--page-ms` on each page (listing, planning, its record) and `--parcel-ms` on each parcel; a parcel reaches a worker
`--latency-ms` later. Workers start at once, and need `--start` seconds to get ready. Simulated are as many pages as
fill `--minutes` of all workers; more pages only make the start and the uneven end weigh less.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from dataclasses import replace
from pathlib import Path

from dbcpu.batch.records import PageRecord, Scan, Task
from dbcpu.cluster.costs import CostModel, cut_parcel
from dbcpu.cluster.engine import LOOK_AHEAD
from dbcpu.cluster.stream import IN_FLIGHT

LANES = 2  # pages that a worker has in hand at once: each takes twice as long as it would alone


def simulate(
    pages: list[PageRecord], workers: int, *, page_s: float, parcel_s: float, latency: float, start: float
) -> float:
    """Return the seconds until the last page has ended."""

    def work(parcel: list[Task]) -> float:
        return sum(seconds[task.scan.name].seconds for task in parcel) / LANES

    costs = CostModel()
    coming = deque(pages)
    waiting: deque[Task] = deque()
    seconds = {page.path: page for page in pages}
    queued: deque[tuple[float, list[Task]]] = deque()  # when it reaches a worker, and what it is
    idle = [start] * workers  # since when each worker without a parcel has been without one
    events: list[tuple[float, int, list[Task]]] = []  # (end, order, parcel) of those in work
    driver = 0.0  # until when the driver is busy
    out, order, last = 0, 0, 0.0
    heapq.heapify(idle)

    def begin(free: float) -> None:
        nonlocal order
        order += 1
        arrives, parcel = queued.popleft()
        heapq.heappush(events, (max(free, arrives) + work(parcel), order, parcel))

    while coming or waiting or queued or events:
        while out < (IN_FLIGHT + 1) * workers and (coming or waiting):
            while coming and len(waiting) < LOOK_AHEAD * workers:
                page = coming.popleft()
                waiting.append(Task(scan=Scan(path=page.path, name=page.path, size=page.size)))
            parcel = cut_parcel(waiting, costs, workers=workers)
            driver += parcel_s + page_s * len(parcel)
            queued.append((driver + latency, parcel))
            out += 1
            if idle:
                begin(heapq.heappop(idle))
        end, _, parcel = heapq.heappop(events)
        last = end
        out -= 1
        driver = max(driver, end)
        for task in parcel:
            costs.learn(seconds[task.scan.name])
        if queued:
            begin(end)
        else:
            heapq.heappush(idle, end)
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--pages", type=int, help="of the whole archive; as many as take --minutes unless given")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 5, 10, 20, 50, 100, 200])
    parser.add_argument("--workers", type=int, default=16, help="of each node")
    parser.add_argument("--page-ms", type=float, default=0.2)
    parser.add_argument("--parcel-ms", type=float, default=7.5)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--start", type=float, default=9)
    given = parser.parse_args()
    lines = given.manifest.read_text(encoding="utf-8").splitlines()
    measured = [record for record in map(PageRecord.from_line, lines) if record.status == "done"]
    times = sorted(record.seconds / LANES for record in measured)
    mean = sum(times) / len(times)
    print(f"{len(measured)} measured pages: mean {mean:.2f} s, from {times[0]:.2f} to {times[-1]:.2f} s")
    print("nodes  workers  pages    hours  pages/s  of ideal")
    for nodes in given.nodes:
        workers = nodes * given.workers
        count = given.pages or round(given.minutes * 60 * workers / mean)
        rng = random.Random(nodes)  # noqa: S311 - pages, not secrets
        drawn = [replace(rng.choice(measured), path=str(n)) for n in range(count)]
        total = simulate(
            drawn,
            workers,
            page_s=given.page_ms / 1000,
            parcel_s=given.parcel_ms / 1000,
            latency=given.latency_ms / 1000,
            start=given.start,
        )
        ideal = sum(page.seconds for page in drawn) / LANES / workers
        print(
            f"{nodes:5}  {workers:7}  {count:7}  {total / 3600:5.2f}  {count / total:7.0f}  {ideal / total:7.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
