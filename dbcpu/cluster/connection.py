"""The connection to a Ray cluster, or a Ray of this machine alone."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import signal
import warnings
from typing import TYPE_CHECKING, Any

from dbcpu.errors import UsageError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)
_OBJECT_STORE = 256 << 20  # bytes, of a local Ray: names, records and the model pass through it, pages never do


def require_ray() -> None:
    """Refuse to go on without Ray Data.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of what runs in this process and would write to stderr
    warnings.filterwarnings("ignore", module=r"ray\.")  # to its own developers
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--engine ray: {error}", remedy="pip install 'dbcpu[ray]'") from error


@contextlib.contextmanager
def connected(address: str | None, *, cpus: int) -> Iterator[None]:
    """Be connected to Ray for the block.

    Args:
        address: of a cluster, "auto" for the one this machine belongs to; None starts a Ray of this machine alone,
            which listens on the loopback address. A process that is connected already stays so.
        cpus: of a Ray of this machine.

    Raises:
        WorkerError: there is no such cluster, or none can be started.
    """
    import ray

    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray would leave one in the user's files
    if ray.is_initialized():
        yield
        return
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        common |= {"num_cpus": cpus, "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
        common |= {"_node_ip_address": "127.0.0.1"}
    with contextlib.redirect_stdout(_ToLog()):  # where Ray prints what it thinks of nodes; results alone go there
        try:
            with _silent_stderr():
                ray.init("local" if address is None else address, **common)
        except Exception as error:  # there are many
            raise WorkerError(f"no connection to Ray: {error}", where=address, remedy="look at `ray status`") from error
        try:
            for number, handler in handlers:  # Ray sets its own
                signal.signal(number, handler)
            yield
        finally:
            ray.shutdown()


class _ToLog(io.TextIOBase):
    """Takes what is printed into the log."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                logger.debug("Ray says: %s", line)
        return len(text)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep away what the libraries below Ray write while they start, whatever the level of their log."""
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
