"""A `dbcpu serve` in a process of its own, on a free port of this machine: for tests and measurements."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_SECONDS_TO_START = 60


@contextlib.contextmanager
def local_server(
    *options: object, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Give the address, ending in a slash, and the process; it is told to end afterwards.

    Raises:
        RuntimeError: it does not start, with what it said.
    """
    command = [sys.executable, "-m", "dbcpu", "serve", "--port", "0", *map(str, options)]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
        try:
            yield _address(process, Path(log.name)), process
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"serving on (\S+)\n", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(log.read_text())
