"""A pool of worker processes: tasks in, events out, and no worker is waited for that hangs or has died."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import dataclass, field
from multiprocessing import connection as connections
from typing import TYPE_CHECKING, Any, Generic

from dbcpu.errors import WorkerError
from dbcpu.workers.nursery import Nursery, NurseryEndedError
from dbcpu.workers.work import Answer, Died, Finished, Raised, Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from dbcpu.workers.work import Event, Work

_MOST_IDLE_DEATHS = 3  # workers that die without a task, one after the other, before the pool gives up
_SECONDS_TO_EXPLAIN = 2.0  # until the nursery has told how a worker ended


@dataclass(eq=False)
class _Worker:
    pid: int
    connection: Connection[Any, Any]
    running: set[int] = field(default_factory=set)
    is_alone: bool = False
    sentence: tuple[int, str] | None = None  # the ticket it is killed for, and why


class WorkerPool(Generic[Task, Answer]):
    """Worker processes of one work; not to be shared between threads.

    Args:
        work: not prepared yet; a process of its own does that, and the workers are forked from it.
        workers: processes.
        lanes: tasks at once in each of them; two let one read or write a file while the other computes.

    Raises:
        Exception: whatever `work.prepare` raises.
    """

    def __init__(self, work: Work[Task, Answer], *, workers: int, lanes: int = 2) -> None:
        self._work = work
        self._lanes = lanes
        self._idle_deaths = 0
        self._nursery = Nursery(work, lanes)
        self._workers: list[_Worker] = []
        for _ in range(workers):
            self._add_worker()

    @property
    def facts(self) -> Any:
        """What `work.prepare` returned."""
        return self._nursery.facts

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers."""
        return tuple(worker.pid for worker in self._workers)

    @property
    def free(self) -> int:
        """How many tasks can be submitted now."""
        return sum(self._lanes - len(worker.running) for worker in self._workers if not worker.is_alone)

    @property
    def has_idle_worker(self) -> bool:
        """Whether a task can be submitted `alone` now."""
        return any(not worker.running for worker in self._workers)

    def submit(self, ticket: int, task: Task, *, alone: bool = False) -> None:
        """Give a task to the worker with the least to do.

        Args:
            ticket: names the task in events; unique among those that run.
            task: for the work.
            alone: in a process without other tasks, so that it is the culprit if that dies.

        Raises:
            ValueError: no lane, or for `alone` no worker, is free.
        """
        choice = min((w for w in self._workers if not w.is_alone), key=lambda w: len(w.running), default=None)
        if choice is None or len(choice.running) >= (1 if alone else self._lanes):
            raise ValueError("no worker is free")
        choice.running.add(ticket)
        choice.is_alone = alone
        with contextlib.suppress(OSError):  # it has just died: `wait` will say so
            choice.connection.send((ticket, task))

    def kill(self, ticket: int, reason: str) -> None:
        """End the process that works on a task; `wait` then tells of it, and of its other tasks.

        Args:
            ticket: of a task that was submitted and has not ended; any other is ignored.
            reason: a clause for people, such as "took longer than 60 seconds".
        """
        for worker in self._workers:
            if ticket in worker.running and worker.sentence is None:
                worker.sentence = (ticket, reason)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None, *, also: Connection[Any, Any] | None = None) -> list[Event[Answer]]:
        """Wait for something to happen.

        Args:
            timeout: in seconds; None waits as long as it takes.
            also: returns when this can be read from, too.

        Returns:
            What has happened, in order for each task; empty when the time is over, or only `also` is ready.

        Raises:
            WorkerError: workers die as soon as they are started.
        """
        by_connection = {worker.connection: worker for worker in self._workers}
        events: list[Event[Answer]] = []
        watched = [*by_connection] if also is None else [*by_connection, also]
        for ready in connections.wait(watched, timeout):
            if ready is also:
                continue
            worker = by_connection[ready]  # type: ignore[index]
            try:
                while worker.connection.poll():
                    events += self._heard(worker, worker.connection.recv())
            except (EOFError, OSError):
                events += self._buried(worker)
        return events

    def close(self, *, graceful: bool = True) -> None:
        """End the workers and the process they come from.

        Args:
            graceful: let running tasks end first; their events are lost.
        """
        if graceful:
            for worker in self._workers:
                with contextlib.suppress(OSError):
                    worker.connection.send(None)
            for worker in self._workers:
                with contextlib.suppress(EOFError, OSError):
                    while True:
                        worker.connection.recv()
        for worker in self._workers:
            worker.connection.close()
        self._workers.clear()
        self._nursery.close()

    def _heard(self, worker: _Worker, message: Any) -> Iterator[Event[Answer]]:
        if isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
            return
        if isinstance(message, (Finished, Raised)):
            worker.running.discard(message.ticket)
            worker.is_alone = False
            self._idle_deaths = 0
        yield message

    def _buried(self, worker: _Worker) -> Iterator[Died]:
        """Put a new worker in the place of one that has died."""
        self._workers.remove(worker)
        worker.connection.close()
        self._idle_deaths = 0 if worker.running else self._idle_deaths + 1
        if self._idle_deaths >= _MOST_IDLE_DEATHS:
            raise WorkerError(
                "worker processes die as soon as they start", remedy="look for a limit on memory or processes"
            )
        reason = _cause(self._nursery.exit_status(worker.pid, _SECONDS_TO_EXPLAIN))
        self._add_worker()
        for ticket in sorted(worker.running):
            if worker.sentence is None:
                yield Died(ticket, reason, True if len(worker.running) == 1 else None)
            else:
                yield Died(ticket, worker.sentence[1], ticket == worker.sentence[0])

    def _add_worker(self) -> None:
        for _ in range(2):
            try:
                self._workers.append(_Worker(*self._nursery.fork()))
                return
            except NurseryEndedError:  # killed from outside; its workers are dying too
                self._nursery.close()
                self._nursery = Nursery(self._work, self._lanes)
        raise WorkerError("the process that worker processes come from dies", remedy="look for a limit on memory")


def _cause(status: int | None) -> str:
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with code {status}"
    name = signal.Signals(-status).name
    return f"killed by {name}" + (", as systems do when memory runs out" if name == "SIGKILL" else "")
