"""A real `dbcpu serve` in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

SAMPLE = Path(__file__).parent / "data" / "sample.jpg"


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def figure(self, name: str) -> float:
        """A figure of /metrics, by its name with its labels; 0 where it is not there yet."""
        found = re.search(rf"^{re.escape(name)} (.+)$", httpx.get(f"{self.url}metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def worker_pids(self) -> list[int]:
        """Of the processes that pictures are worked on in: grandchildren of the server."""
        return [pid for nursery in children(self.process.pid) for pid in children(nursery)]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in text.split()]


@contextlib.contextmanager
def serving(*options: object, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """Serve the default model on a free port, by default with one worker and small inputs of the network."""
    command = [sys.executable, "-m", "dbcpu", "serve", "--port", 0, "--workers", 1, "--threads", 1, "--short-side", 128]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [str(part) for part in (*command, *options)], stderr=stream, env={**os.environ, **(environment or {})}
            )
        try:
            yield Served(_address(process, log), process, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"serving on (\S+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(log.read_text())


def wait_until(holds: Callable[[], object], seconds: float = 20) -> bool:
    """Wait for something that other processes bring about; whether it has come."""
    deadline = time.monotonic() + seconds
    while not (result := bool(holds())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return result
