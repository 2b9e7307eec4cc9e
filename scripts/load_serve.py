"""Measure `dbcpu serve` under load on this machine, beside `dbcpu batch` on the same pictures.

    python -m scripts.load_serve PICTURE... [--clients 1 2 8 32] [--requests 48] [--growth 5000]

Clients send one picture after the other to 127.0.0.1, each over a connection of its own. With --growth, a second server
gets so many requests of small inputs, and the memory of all its processes is told on the way.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from scripts.local_server import local_server
from scripts.processes import descendants

QUANTILES = (0.5, 0.9, 0.99)
WARM_UP = 4  # requests before anything is measured
RETRY = 0.2  # seconds after a 503


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 2, 8, 32])
    parser.add_argument("--requests", type=int, default=48, help="pictures for each number of clients")
    parser.add_argument("--short-side", type=int, default=736, help="as in scripts.bench (default: %(default)s)")
    parser.add_argument("--growth", type=int, default=0, metavar="N", help="requests of small inputs")
    arguments = parser.parse_args()
    pictures = [path.read_bytes() for path in arguments.pictures]
    print("| clients | pictures/s | " + " | ".join(f"p{round(q * 100)}" for q in QUANTILES) + " | statuses |")
    print("| --- | --- |" + " --- |" * len(QUANTILES) + " --- |")
    options = ("--short-side", str(arguments.short_side))
    with local_server(*options) as (url, _):
        load(url, pictures, clients=2, requests=WARM_UP)
        for clients in arguments.clients:
            started = time.perf_counter()
            seconds, statuses = load(url, pictures, clients=clients, requests=arguments.requests)
            rate = len(seconds) / (time.perf_counter() - started)
            figures = " | ".join(f"{quantile(seconds, q) * 1000:.0f} ms" for q in QUANTILES)
            print(f"| {clients} | {rate:.2f} | {figures} | {dict(statuses)} |", flush=True)
    print(f"\n`dbcpu batch`: {batch_rate(arguments.pictures, arguments.requests, options):.2f} pictures/s")
    if arguments.growth:
        print_growth(pictures[0], arguments.growth)


def load(url: str, pictures: Sequence[bytes], *, clients: int, requests: int) -> tuple[list[float], Counter[int]]:
    """Return the seconds of the answers that have a result, and how often each status came."""
    turns = itertools.cycle(pictures)
    left = iter(range(requests))
    seconds: list[float] = []
    statuses: Counter[int] = Counter()

    def work() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        for _, picture in zip(left, turns, strict=False):
            status = 503
            while status == 503:
                started = time.perf_counter()
                connection.request("POST", "/v1/detect", picture)
                response = connection.getresponse()
                response.read()
                status = response.status
                statuses[status] += 1
                if status == 503:
                    time.sleep(RETRY)
            if status == 200:
                seconds.append(time.perf_counter() - started)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(seconds), statuses


def quantile(seconds: Sequence[float], share: float) -> float:
    """Of sorted seconds."""
    return seconds[min(len(seconds) - 1, int(share * len(seconds)))]


def print_growth(picture: bytes, requests: int) -> None:
    """Send many requests to a server of small inputs, and print the memory of its processes."""
    print("\n| requests of inputs of 64 pixels | memory | processes |\n| --- | --- | --- |")
    tenth = max(1, requests // 10)
    with local_server("--short-side", 64) as (url, process):
        for done in range(tenth, requests + 1, tenth):
            _, statuses = load(url, [picture], clients=8, requests=tenth)
            if set(statuses) != {200}:
                sys.exit(f"statuses {dict(statuses)}")
            family = [process.pid, *descendants(process.pid)]
            print(f"| {done} | {sum(map(own_memory, family)) / 2**20:.1f} MiB | {len(family)} |", flush=True)


def own_memory(pid: int) -> int:
    """Return the bytes of a process, pages that it shares counted by their share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)[1]) * 1024  # type: ignore[index]


def batch_rate(pictures: Sequence[Path], requests: int, options: Sequence[str]) -> float:
    """Return how many pictures a second `dbcpu batch` does with these options, from its first result to its last."""
    with tempfile.TemporaryDirectory() as folder:
        source, results = Path(folder, "source"), Path(folder, "results")
        source.mkdir()
        for number, path in zip(range(requests), itertools.cycle(pictures), strict=False):
            shutil.copy(path, source / f"{number:05d}{path.suffix}")
        subprocess.run([sys.executable, "-m", "dbcpu", "batch", source, results, "-q", *options], check=True)
        written = sorted(path.stat().st_mtime for path in results.glob("0*.json"))
        return (len(written) - 1) / (written[-1] - written[0])


if __name__ == "__main__":
    main()
