"""Run `dbcpu batch` over thousands of pages and show, over time, pages, busy cores and memory.

    python -m scripts.measure_batch ../shared --pages 2000

The pages are the test pictures under new names, in folders of a hundred; one in twenty is an odd or broken file.
Linux only: figures come from /proc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dbcpu.engine.threads import available_cpus
from scripts.processes import descendants

TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """What was seen at one moment."""

    seconds: float
    pages: int
    cpu_seconds: float
    mebibytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--rows", type=int, default=10, help="of the table")
    arguments, options = parser.parse_known_args()  # what is not known here is an option of dbcpu batch
    with tempfile.TemporaryDirectory() as folder:
        scans, results = Path(folder) / "scans", Path(folder) / "results"
        hostile = link_pages(arguments.shared / "data", scans, arguments.pages)
        command = [sys.executable, "-m", "dbcpu", "batch", str(scans), str(results), "-q", "--include", "*"]
        process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        samples = list(watch(process, results / "manifest.jsonl", arguments.every))
        _, errors = process.communicate()
        print(f"exit code {process.returncode}; {errors.splitlines()[-1] if errors else 'no errors'}")
        report(samples, arguments.rows)
        account(results / "manifest.jsonl", hostile)


def link_pages(data: Path, scans: Path, count: int) -> set[str]:
    """Fill a folder with links to pictures; returns the names of the odd ones."""
    good = sorted(path for path in (data / "test").glob("*/images/*") if path.is_file())
    odd = sorted(path for path in (data / "hostile").glob("*/*") if path.is_file())
    pages, oddities, names = itertools.cycle(good), itertools.cycle(odd), set()
    for number in range(count):
        is_odd = number % 20 == 19
        source = next(oddities if is_odd else pages)
        name = f"{number // 100:03d}/{number:05d}_{source.name}"
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        (scans / name).symlink_to(source.resolve())
        if is_odd:
            names.add(name)
    return names


def watch(process: subprocess.Popen[str], manifest: Path, every: float) -> Iterator[Sample]:
    started = time.monotonic()
    while process.poll() is None:
        tree = [process.pid, *descendants(process.pid)]
        cpu = sum(cpu_seconds(pid) for pid in tree)
        memory = sum(proportional_memory(pid) for pid in tree)
        pages = manifest.read_bytes().count(b"\n") if manifest.exists() else 0
        yield Sample(time.monotonic() - started, pages, cpu, memory)
        time.sleep(every)


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS  # own and collected children's, in user and system mode


def proportional_memory(pid: int) -> float:
    """Return the memory of a process in MiB, what it shares divided by the number of those who share it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def report(samples: list[Sample], rows: int) -> None:
    working = [sample for sample in samples if sample.pages > 0]
    if len(working) < 2:
        print("too quick to measure: give more --pages")
        return
    first, last = working[0], working[-1]
    cores = available_cpus()
    print("| s | pages | pages/s | cores busy | MiB |\n| --- | --- | --- | --- | --- |")
    steps = [working[round(step * (len(working) - 1) / rows)] for step in range(rows + 1)]
    for before, now in itertools.pairwise(steps):
        if now.seconds > before.seconds:
            print(row(before, now, cores))
    peak = max(sample.mebibytes for sample in samples)
    print(f"from the first page on: {row(first, last, cores)}\npeak of memory: {peak:.0f} MiB")


def row(before: Sample, now: Sample, cores: int) -> str:
    seconds = now.seconds - before.seconds
    busy = (now.cpu_seconds - before.cpu_seconds) / seconds / cores
    rate = (now.pages - before.pages) / seconds
    return f"| {now.seconds:.0f} | {now.pages} | {rate:.2f} | {busy:.1%} | {now.mebibytes:.0f} |"


def account(manifest: Path, hostile: set[str]) -> None:
    """Show that every odd file has become a result or a reason."""
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    known = {record["path"] for record in records}
    failed = {record["path"]: record["error"] for record in records if record["status"] == "failed"}
    print(
        f"{len(records)} pages of {len(known)} files; "
        f"of {len(hostile)} odd files {len(hostile - failed.keys())} gave results, "
        f"{len(hostile & failed.keys())} a reason, {len(hostile - known)} nothing; "
        f"{len(failed.keys() - hostile)} others failed"
    )


if __name__ == "__main__":
    main()
