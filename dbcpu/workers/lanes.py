"""The inside of a worker process: lanes, which are threads that do one task each."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import threading
from typing import TYPE_CHECKING, Any

from dbcpu.workers.work import Answered, Finished, Raised

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from dbcpu.workers.work import Work


def work_until_told(work: Work[Any, Any], connection: Connection[Any, Any], lanes: int) -> None:
    """Do the tasks that arrive, `lanes` at once, until None arrives; end the process when the other side is gone.

    Args:
        work: prepared.
        connection: gives `(ticket, task)`, takes events and log records.
        lanes: threads.
    """
    tasks: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
    outlet = _Outlet(connection)
    logging.getLogger("dbcpu").handlers = [outlet]
    threads = [threading.Thread(target=_run_lane, args=(work, tasks, outlet)) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(EOFError, OSError):
        while (item := connection.recv()) is not None:
            tasks.put(item)
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()
        return
    os._exit(1)  # nobody waits for the answers; lanes in mid-work must not write any more


def _run_lane(work: Work[Any, Any], tasks: queue.SimpleQueue[tuple[int, Any] | None], outlet: _Outlet) -> None:
    while (item := tasks.get()) is not None:
        ticket, task = item
        try:
            for answer in work(task):
                outlet.send(Answered(ticket, answer))
            outlet.send(Finished(ticket))
        except Exception as error:
            logging.getLogger(__name__).debug("traceback", exc_info=True)
            outlet.send(Raised(ticket, _portable(error)))


def _portable(error: Exception) -> Exception:
    """Return the error, or its words where it cannot travel between processes."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Outlet(logging.Handler):
    """The way out of the process, for events and log records of all its threads."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        super().__init__()
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)  # a traceback included
        plain = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, None, None)
        self.send(plain)
