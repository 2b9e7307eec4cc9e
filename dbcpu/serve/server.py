"""The process that listens: its socket and its signals."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from dbcpu.engine.threads import available_cpus
from dbcpu.errors import UsageError
from dbcpu.serve.app import create_app
from dbcpu.serve.connections import timed_protocol
from dbcpu.serve.line import Line
from dbcpu.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbcpu.errors import DbcpuError
    from dbcpu.serve.settings import ServeSettings
    from dbcpu.serve.work import ServeWork

_BACKLOG = 128
_KEEP_ALIVE = 5  # seconds that an idle connection stays open
_TO_END = 5.0  # seconds beyond the deadline until a shutdown stops waiting


def serve(settings: ServeSettings, work: ServeWork, on_listening: Callable[[str], None]) -> None:
    """Listen until SIGTERM or SIGINT, then finish what was begun.

    Args:
        settings: of the server.
        work: of the workers, not prepared.
        on_listening: told the address once the network is loaded.

    Raises:
        UsageError: the address cannot be listened on.
        WorkerError: workers cannot be kept alive.
        DbcpuError: whatever loading the network raises.
        KeyboardInterrupt: SIGINT, after the end.
    """
    with _listening_socket(settings.host, settings.port) as listener:
        pool = WorkerPool(work, workers=settings.workers, lanes=1)
        server: uvicorn.Server

        def give_up(_: DbcpuError) -> None:
            server.should_exit = True

        line = Line(pool, settings, cpus=available_cpus(), on_broken=give_up)
        config = uvicorn.Config(
            create_app(settings, pool.facts, line),
            http=timed_protocol(settings.limits.read_timeout),
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=round(settings.limits.deadline + _TO_END),
        )
        server = uvicorn.Server(config)
        on_listening(_address(listener))
        with _quiet_sigterm():
            server.run(sockets=[listener])
        if line.error is not None:
            raise line.error


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        what = f"cannot listen there: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, where=f"{host} port {port}", remedy="choose another with --host and --port") from None


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def _quiet_sigterm() -> Iterator[None]:
    """After a graceful end uvicorn raises the signal again; SIGTERM then ends the process without an error.

    SIGHUP, of a terminal that was closed, becomes SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
