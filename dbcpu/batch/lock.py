"""One run at a time on a folder of results."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from dbcpu.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)
HEARTBEAT = 10.0  # seconds between signs of life
SILENCE = 60.0  # seconds after which a holder on another machine is taken for dead


@contextlib.contextmanager
def locked(path: Path, *, what: Path | None = None) -> Iterator[None]:
    """Hold the lock file `path` for the block; it tells host, process and the last sign of life.

    The system frees the lock of a process that dies, so that of a killed run is taken over at once. Where the folder is
    shared between machines and locks are not, a holder on another machine counts as alive for a minute after its last
    heartbeat.

    Args:
        path: of the file.
        what: it locks, for messages; the folder around that of the file, unless given.

    Raises:
        OutputError: another run holds it, or the file cannot be written.
    """
    try:
        descriptor = _open_locked(path, path.parent.parent if what is None else what)
    except OSError as error:
        raise OutputError(f"the lock cannot be written: {error.strerror or error}", where=path) from error
    ended = threading.Event()
    pulse = threading.Thread(target=_beat, args=(descriptor, ended), daemon=True)
    try:
        _sign(descriptor)
        pulse.start()
        yield
    finally:
        ended.set()
        if pulse.is_alive():
            pulse.join()
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path, what: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holder = _checked_holder(descriptor, what)
            # Between opening and locking, the run before may have deleted the file.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                if holder:
                    logger.warning("taking over from a run that did not end: %s", described(holder))
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def check_unlocked(path: Path, *, what: Path) -> None:
    """Refuse to go on where another run holds the lock file `path`, as `locked`, which stays as it is.

    Raises:
        OutputError: another run holds it, or it cannot be looked at.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"the lock cannot be read: {error.strerror or error}", where=path) from error
    try:
        _checked_holder(descriptor, what, shared=True)
    finally:
        os.close(descriptor)


def _checked_holder(descriptor: int, what: Path, *, shared: bool = False) -> dict[str, Any]:
    """Lock a lock file, or refuse; returns what it says of a holder that is no more."""
    is_ours = _try_lock(descriptor, shared=shared)
    holder = _holder(descriptor)
    if not is_ours or _lives_elsewhere(holder):
        raise OutputError(
            f"another run works on these results: {described(holder)}",
            where=what,
            remedy="wait until it ends, or choose another folder",
        )
    return holder


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: a file that is open there cannot be deleted, and the heartbeat has to do
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> dict[str, Any]:
    """Return what the file says of its holder; nothing where it is new, or was being written."""
    with contextlib.suppress(ValueError, OSError):
        content = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(content, dict):
            return content
    return {}


def _lives_elsewhere(holder: dict[str, Any]) -> bool:
    if not holder or holder.get("host") == socket.gethostname():
        return False
    return time.time() - float(holder.get("heartbeat", 0)) < SILENCE


def described(holder: dict[str, Any]) -> str:
    """Return words for the content of a lock."""
    if not holder:
        return "it has not said which"
    age = max(0, round(time.time() - float(holder.get("heartbeat", 0))))
    return f"process {holder.get('process')} on {holder.get('host')}, last heartbeat {age} s ago"


def _sign(descriptor: int) -> None:
    content = {"host": socket.gethostname(), "process": os.getpid(), "heartbeat": round(time.time(), 1)}
    line = json.dumps(content).ljust(200).encode()  # always the same length: readers never see half of it
    os.pwrite(descriptor, line, 0)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # a full disk must not end the run here
            _sign(descriptor)
