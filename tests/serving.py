"""A real `dbcpu serve` in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from scripts.local_server import local_server
from scripts.processes import descendants

SAMPLE = Path(__file__).parent / "data" / "sample.jpg"


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def figure(self, name: str) -> float:
        """A figure of /metrics, by its name with its labels; 0 where it is not there yet."""
        found = re.search(rf"^{re.escape(name)} (.+)$", httpx.get(f"{self.url}metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def pids(self) -> list[int]:
        """Of the process that loads the model, and of the workers that it forks."""
        return descendants(self.process.pid)


@contextlib.contextmanager
def serving(*options: object, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """Serve the default model on a free port, by default with one worker and small inputs of the network."""
    quick = ("--workers", 1, "--threads", 1, "--short-side", 128)
    with local_server(*quick, *options, environment=environment) as (url, process):
        yield Served(url, process)


def wait_until(holds: Callable[[], object], seconds: float = 20) -> bool:
    """Wait for something that other processes bring about; whether it has come."""
    deadline = time.monotonic() + seconds
    while not (result := bool(holds())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return result
