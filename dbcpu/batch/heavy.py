"""Huge pages one at a time, in all processes of a run together, so that memory is bounded by one of them."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAVY_PIXELS = 50_000_000  # of a page: 150 MB when it is read, twice that and more while it is being decoded
_SECONDS_BETWEEN_TRIES = 0.1


class Gate:
    """Lets one lane at a time of any process in; made before these are forked, and freed by the system if one dies.

    Args:
        name: of a file in the folder for temporary ones, for processes that are not forked from one another.
    """

    def __init__(self, name: str | None = None) -> None:
        # It lives as long as the process.
        path = None if name is None else Path(tempfile.gettempdir(), name)
        self._file = tempfile.TemporaryFile() if path is None else path.open("ab")  # noqa: SIM115
        self._lanes = threading.Lock()  # the lock of the file is the process', whichever lane asks

    @contextlib.contextmanager
    def passed(self) -> Iterator[Iterator[None]]:
        """Give an iterator that ends when the way is free, and yields while it is not; then hold it for the block."""
        held = False

        def wait() -> Iterator[None]:
            nonlocal held
            while not self._lanes.acquire(timeout=_SECONDS_BETWEEN_TRIES):
                yield
            held = True
            while not self._try_file():
                yield
                time.sleep(_SECONDS_BETWEEN_TRIES)

        try:
            yield wait()
        finally:
            if held:
                self._free_file()
                self._lanes.release()

    def _try_file(self) -> bool:
        try:
            import fcntl
        except ImportError:  # no fork, hence no other process
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _free_file(self) -> None:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN)


def is_heavy(stream: BinaryIO) -> bool:
    """Whether the first page of a picture file is huge, by its header; the stream is left at its start."""
    from dbcpu.decoders import first_page_size

    size = first_page_size(stream)
    return size is not None and size.height * size.width > HEAVY_PIXELS
