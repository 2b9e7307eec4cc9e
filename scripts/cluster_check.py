"""Show that the Ray engine does what the local one does, on two nodes of this machine, whatever is killed meanwhile.

    python -m scripts.cluster_check ../shared/data/test --pages 500

Two nodes with one core each are started on the loopback address. The same pages go through the local engine with two
workers and through the two nodes: files are compared byte for byte, times are compared, then a worker and a whole node
are killed with SIGKILL in the middle of a run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.processes import descendants
from tests.helpers import results_in

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}
RAY = Path(sys.executable).with_name("ray")
STORE = 100 << 20  # bytes


class Nodes:
    """Two Ray nodes of this machine, each with a core: a head, where the driver is, and another one."""

    def __init__(self, port: int = 6399) -> None:
        self.address = f"127.0.0.1:{port}"
        head = ("--head", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats")
        self.processes = [self._start(*head)]
        time.sleep(4)
        self.processes.append(self._start(f"--address={self.address}"))
        time.sleep(4)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(RAY), "start", *arguments, "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block"]
        command.append(f"--object-store-memory={STORE}")
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, stdout=nowhere, stderr=nowhere)

    def kill_second(self) -> None:
        """Kill the second node at once, with all its processes."""
        group = descendants(self.processes[1].pid)
        for pid in (self.processes[1].pid, *group):
            kill(pid)

    def stop(self) -> None:
        """Kill everything that was started."""
        for process in reversed(self.processes):
            for pid in (process.pid, *descendants(process.pid)):
                kill(pid)
            process.wait()


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def actors() -> list[int]:
    """The processes of the actors that work on pages."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::MapWorker" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def start(scans: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dbcpu", "batch", str(scans), str(out), "--log-json", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], began: float) -> dict[str, Any]:
    """Wait for a run: its times, and how often each page ended."""
    events = []
    for line in process.stderr or ():
        if line.startswith("{"):
            events.append(json.loads(line))
        else:
            print(" ", line.rstrip())
    code = process.wait()
    pages = [event for event in events if event["event"] in ("page", "failed")]
    return {
        "code": code,
        "seconds": time.time() - began,
        "until_first": pages[0]["time"] - began,
        "until_last": pages[-1]["time"] - began,
        "page_times": [page["time"] - began for page in pages],
        "twice": [page for page, n in Counter((p["path"], p["page"]) for p in pages).items() if n > 1],
        "failed": sum(page["event"] == "failed" for page in pages),
    }


def compare(out: Path, expected: dict[str, bytes], run: dict[str, Any], what: str) -> None:
    found = results_in(out)
    differing = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
    verdict = "the same" if not differing else f"DIFFERENT: {sorted(differing)[:5]}"
    print(
        f"{what}: exit code {run['code']}, {run['seconds']:.1f} s, {len(found)} files, {verdict}; "
        f"{run['failed']} failed, {len(run['twice'])} pages told twice",
        flush=True,
    )


def rate(run: dict[str, Any]) -> float:
    """Pages a second between the first tenth of the pages and the last tenth."""
    times = sorted(run["page_times"])
    low, high = len(times) // 10, len(times) * 9 // 10
    return float((high - low) / (times[high] - times[low]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--short-side", default="160")
    parser.add_argument("--skip", nargs="*", default=(), choices=["plain", "worker", "node"])
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dbcpu-cluster-"))
    pictures = sorted(p for p in given.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".png", ".tif"))
    scans = folder / "scans"
    for number, picture in zip(range(given.pages), itertools.cycle(pictures)):
        target = scans / f"box {number % 7}" / f"{number:05d}{picture.suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, target)
    options = ("--short-side", given.short_side, "--tile", "off", "--format", "json,hocr", "--overlay")

    began = time.time()
    local = finish(start(scans, folder / "local", *options, "--workers", "2", "--threads", "1"), began)
    expected = results_in(folder / "local")
    print(
        f"local engine, 2 workers: {local['seconds']:.1f} s, first page after {local['until_first']:.1f} s", flush=True
    )

    nodes = Nodes()
    remote = (*options, "--engine", "ray", "--address", nodes.address)
    random.seed(1)
    try:
        if "plain" not in given.skip:
            began = time.time()
            run = finish(start(scans, folder / "ray", *remote), began)
            compare(folder / "ray", expected, run, "Ray, two nodes")
            print(
                f"  first page after {run['until_first']:.1f} s; {rate(run):.2f} pages/s, local {rate(local):.2f}: "
                f"efficiency {rate(run) / rate(local):.1%} in the middle of the run, "
                f"{local['seconds'] / run['seconds']:.1%} with start and end",
                flush=True,
            )
        for what in ("worker", "node"):
            if what in given.skip:
                continue
            out = folder / f"ray-{what}"
            began = time.time()
            process = start(scans, out, *remote)
            wait_for_pages(out / "manifest.jsonl", given.pages // 4)
            if what == "worker":
                kill(random.choice(actors()))  # noqa: S311
            else:
                nodes.kill_second()
            compare(out, expected, finish(process, began), f"SIGKILL of a {what} in mid-run")
    finally:
        nodes.stop()
    shutil.rmtree(folder)


def wait_for_pages(manifest: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not (manifest.exists() and manifest.read_bytes().count(b"\n") >= count):
        if time.monotonic() > deadline:
            raise TimeoutError("no pages have ended")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
