"""The line that pictures wait in, between the event loop and the worker processes.

All state belongs to the event loop. One thread owns the pool, and passes on what it is told and what it hears.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import deque
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import TYPE_CHECKING

from dbcpu.errors import DbcpuError
from dbcpu.serve.problems import BUSY, DEADLINE, UNEXPECTED, WORKER_DIED, ServeError
from dbcpu.workers.work import Answered, Died, Finished, Raised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dbcpu.serve.settings import ServeSettings
    from dbcpu.serve.work import Detection, PageDone, Rendition
    from dbcpu.workers.pool import WorkerPool
    from dbcpu.workers.work import Event

    Task = Detection | Rendition
    Pool = WorkerPool[tuple[Task, int], PageDone]

logger = logging.getLogger(__name__)
_GRACE = 2.0  # seconds that a running task goes on for a client who has left, before its worker is killed for it
_MOST_DEATHS = 2  # of workers over a task
_SHARE_TO_WAIT = 0.7  # of the deadline
_SMOOTHING = 0.2  # weight of the latest task in the mean of seconds that tasks take


class Job:
    """One task in the line: an asynchronous iterator of its answers.

    Iterating raises `DbcpuError` where the task failed.

    Attributes:
        waited: seconds in the line; until it runs, None.
    """

    def __init__(self, line: Line, ticket: int, task: Task) -> None:
        self._line = line
        self.ticket = ticket
        self.task = task
        self.queued = time.perf_counter()
        self.waited: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._answers: asyncio.Queue[PageDone | DbcpuError | None] = asyncio.Queue()
        self._pages: set[int] = set()
        self.deaths = 0
        self.is_over = False

    def answer(self, answer: PageDone) -> None:
        """Hand an answer to the one who iterates; once for each page, also where the task is done again."""
        if not self.is_over and answer.page not in self._pages:
            self._pages.add(answer.page)
            self._answers.put_nowait(answer)

    def end(self, error: DbcpuError | None = None) -> None:
        """End the answers, with an error or without."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.is_over:
            self.is_over = True
            self._answers.put_nowait(error)

    def leave(self) -> None:
        """Give up the place: nobody waits for the answers any more."""
        self._line.leave(self)

    async def __aiter__(self) -> AsyncIterator[PageDone]:
        """Give the answers as they come."""
        while (answer := await self._answers.get()) is not None:
            if isinstance(answer, DbcpuError):
                raise answer
            yield answer


class Line:
    """A bounded line in front of the workers.

    Args:
        pool: of workers with one lane each; closed by `stop`.
        settings: of the server.
        cpus: to be shared among the pictures that are worked on, where the settings name no threads.
        on_broken: called on the event loop when workers cannot be kept alive.
    """

    def __init__(
        self, pool: Pool, settings: ServeSettings, *, cpus: int, on_broken: Callable[[DbcpuError], None]
    ) -> None:
        self._pool = pool
        self._workers = settings.workers
        self._threads = settings.threads
        self._cpus = cpus
        self._places = settings.queue
        self._deadline = settings.limits.deadline
        self._on_broken = on_broken
        self._tickets = itertools.count()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._mean_seconds = 1.0
        self._orders: SimpleQueue[Callable[[Pool], None] | None] = SimpleQueue()
        self._alarm, self._alarm_button = Pipe(duplex=False)
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._own_pool, name="pool")
        self.deaths = 0
        self.error: DbcpuError | None = None

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Tasks that workers are at."""
        return len(self._running)

    def start(self) -> None:
        """Begin to work; to be called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End the workers; what still waits or runs fails."""
        self._orders.put(None)
        self._alarm_button.send_bytes(b"!")
        await asyncio.to_thread(self._thread.join)
        for job in [*self._waiting, *self._running.values()]:
            job.end(ServeError(BUSY, "the server is shutting down", retry_after=1))

    def join(self, task: Task) -> Job:
        """Take a place in the line.

        Raises:
            ServeError: no place is free, or the workers are broken.
        """
        if self.error is not None:
            raise ServeError(UNEXPECTED, self.error.what, remedy=self.error.remedy)
        if len(self._running) >= self._workers and len(self._waiting) >= self._useful_places():
            what = f"{len(self._running)} pictures are worked on and {len(self._waiting)} wait"
            raise ServeError(BUSY, what, remedy="try again later", retry_after=self._seconds_to_wait())
        job = Job(self, next(self._tickets), task)
        job.timer = self._loop.call_later(self._deadline, self._overdue, job)
        self._waiting.append(job)
        self._dispatch()
        return job

    def _useful_places(self) -> int:
        """Return how many may wait: whoever would hardly be done by the deadline is told at once, not after it."""
        in_time = _SHARE_TO_WAIT * self._deadline * self._workers / self._mean_seconds
        return min(self._places, max(1, int(in_time)))

    def _seconds_to_wait(self) -> int:
        """Return when about a place will be free, in whole seconds."""
        return max(1, math.ceil(self._mean_seconds * (len(self._waiting) + 1) / self._workers))

    def leave(self, job: Job) -> None:
        """See `Job.leave`: one that waits goes at once, and one that runs has a moment to end by itself."""
        if job.is_over:
            return
        job.end()
        if job in self._waiting:
            self._waiting.remove(job)
        else:
            job.timer = self._loop.call_later(_GRACE, self._kill, job, "nobody waits for it any more")

    def _dispatch(self) -> None:
        while self._waiting and len(self._running) < self._workers:
            job = self._waiting.popleft()
            job.waited = time.perf_counter() - job.queued
            self._running[job.ticket] = job
            self._submit(job, self._threads or max(1, self._cpus // len(self._running)))

    def _submit(self, job: Job, threads: int) -> None:
        self._order(lambda pool: pool.submit(job.ticket, (job.task, threads)))

    def _overdue(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            what = f"waited {self._deadline:g} seconds, and no worker was free"
        else:
            what = f"took longer than {self._deadline:g} seconds"
            self._kill(job, what)
        job.end(ServeError(DEADLINE, what, remedy="send a smaller picture, or fewer at once"))

    def _kill(self, job: Job, reason: str) -> None:
        self._order(lambda pool: pool.kill(job.ticket, reason))

    def _order(self, order: Callable[[Pool], None]) -> None:
        self._orders.put(order)
        self._alarm_button.send_bytes(b"!")

    def _hear(self, events: list[Event[PageDone]]) -> None:
        for event in events:
            if isinstance(event, Answered):
                self._running[event.ticket].answer(event.answer)
                continue
            job = self._running.pop(event.ticket)
            if isinstance(event, Finished):
                seconds = time.perf_counter() - job.queued - (job.waited or 0)
                self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)
                job.end()
            elif isinstance(event, Raised):
                job.end(_as_known(event.error))
            elif isinstance(event, Died):
                self._bury(job, event)
        self._dispatch()

    def _bury(self, job: Job, event: Died) -> None:
        """Give the task another worker, in case that the first one was killed for no fault of the picture."""
        self.deaths += 1
        job.deaths += 1
        logger.warning("a worker process died: %s", event.reason)
        if job.is_over:
            return
        if job.deaths < _MOST_DEATHS:
            self._waiting.appendleft(job)
        else:
            what = f"{job.deaths} processes died over it, the last one {event.reason}"
            job.end(ServeError(WORKER_DIED, what, remedy="please report the picture, unless memory has run out"))

    def _break(self, error: DbcpuError) -> None:
        self.error = error
        for job in [*self._waiting, *self._running.values()]:
            job.end(ServeError(UNEXPECTED, error.what, remedy=error.remedy))
        self._waiting.clear()
        self._running.clear()
        self._on_broken(error)

    def _own_pool(self) -> None:
        """Run in the thread that owns the pool."""
        try:
            while True:
                events = self._pool.wait(also=self._alarm)
                if events:
                    self._loop.call_soon_threadsafe(self._hear, events)
                while self._alarm.poll():
                    self._alarm.recv_bytes()
                    order = self._orders.get()
                    if order is None:
                        return
                    order(self._pool)
        except Exception as error:
            self._loop.call_soon_threadsafe(self._break, _as_known(error))
        finally:
            self._pool.close(graceful=False)


def _as_known(error: Exception) -> DbcpuError:
    if isinstance(error, DbcpuError):
        return error
    logger.error("unexpected error: %s: %s", type(error).__name__, error)
    return ServeError(UNEXPECTED, f"{type(error).__name__}: {error}", remedy="please report it")
