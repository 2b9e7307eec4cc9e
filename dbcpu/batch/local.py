"""The local engine: tasks through worker processes of this machine."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from dbcpu.batch.records import Outcome, PageRecord, Rest, Task, Waiting
from dbcpu.workers.work import Answered, Died, Raised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbcpu.batch.work import Facts, PageWork
    from dbcpu.workers.pool import WorkerPool
    from dbcpu.workers.work import Event

    Answer = Outcome | Rest | Waiting

_PAGES_AT_ONCE = 16  # of a file whose pages can be read in any order, for one task
_LONGEST_WAIT = 0.5  # seconds between looks at deadlines and at what the user wants


class Engine(Protocol):
    """Something that works on tasks."""

    @property
    def facts(self) -> Facts:
        """Of the work."""

    def run(self, tasks: Iterator[Task | None], *, is_stopped: Callable[[], bool]) -> Iterator[Outcome | None]:
        """Work on tasks, begun in their order, several at once.

        Args:
            tasks: taken when there is room for them; None where the next one is not known yet.
            is_stopped: whether nothing more is to be begun; what runs then ends.

        Yields:
            What became of each page, in the order they end in; None now and then when nothing happens for a while.

        Raises:
            DbcpuError: results cannot be written, or workers cannot be kept alive.
        """

    def close(self, *, graceful: bool) -> None:
        """End it; `graceful` lets what is running finish."""


@dataclass(eq=False)
class _Running:
    task: Task
    page: int  # that is worked on, as far as it is known
    since: float
    sha256: str | None
    is_retry: bool  # of its page
    has_left_rest: bool = False  # to other tasks, after which it only has to end


class LocalEngine:
    """Worker processes on this machine; a page that crashes one or takes too long becomes a failure.

    Args:
        pool: of `PageWork`.
        seconds_per_page: after which the process that works on a page is killed.
        on_rest: gets the pages of files that other tasks may work on; without it, workers of this engine do.
    """

    def __init__(
        self,
        pool: WorkerPool[Task, Answer],
        *,
        seconds_per_page: float,
        on_rest: Callable[[Rest], None] | None = None,
    ) -> None:
        self._pool = pool
        self._on_rest = on_rest or (lambda rest: self._ready.extend(pieces(rest)))
        self._limit = seconds_per_page
        self._running: dict[int, _Running] = {}
        self._ready: deque[Task] = deque()  # what is left of tasks that were begun
        self._suspects: deque[Task] = deque()  # each will have a process for itself
        self._tickets = 0

    @property
    def facts(self) -> Facts:
        """As `Engine.facts`."""
        facts: Facts = self._pool.facts
        return facts

    def run(self, tasks: Iterator[Task | None], *, is_stopped: Callable[[], bool]) -> Iterator[Outcome | None]:
        """As `Engine.run`."""
        while self._feed(tasks, is_stopped=is_stopped) or self._running:
            events = self._pool.wait(_LONGEST_WAIT)
            for event in events:
                yield from self._outcomes(event)
            if not events:
                yield None
            self._enforce_limit()

    def close(self, *, graceful: bool) -> None:
        """As `Engine.close`."""
        self._pool.close(graceful=graceful)

    def _feed(self, tasks: Iterator[Task | None], *, is_stopped: Callable[[], bool]) -> bool:
        """Give every free lane something to do; whether there was anything, or will be."""
        fed = False
        if is_stopped():
            self._ready.clear()
            tasks = iter(())
        while self._suspects or self._pool.free:
            if self._suspects:
                # No other task begins meanwhile: a worker without any would otherwise never be seen.
                if not self._pool.has_idle_worker:
                    break
                self._submit(self._suspects.popleft(), is_retry=True)
            else:
                try:
                    task = self._ready.popleft() if self._ready else next(tasks)
                except StopIteration:
                    break
                if task is None:
                    return True
                self._submit(task, is_retry=False)
            fed = True
        return fed

    def _submit(self, task: Task, *, is_retry: bool) -> None:
        self._tickets += 1
        self._running[self._tickets] = _Running(task, task.first_page, time.monotonic(), task.sha256, is_retry)
        self._pool.submit(self._tickets, task, alone=is_retry)

    def _outcomes(self, event: Event[Answer]) -> Iterator[Outcome]:
        if isinstance(event, Answered):
            running = self._running[event.ticket]
            running.since = time.monotonic()
            if isinstance(event.answer, Rest):
                running.has_left_rest = True
                self._on_rest(event.answer)
                return
            if isinstance(event.answer, Waiting):
                return
            running.task = running.task.told(event.answer)
            if isinstance(event.answer, PageRecord):
                running.page = event.answer.page + 1
                running.is_retry = False
                running.sha256 = event.answer.sha256
            yield event.answer
            return
        running = self._running.pop(event.ticket)
        running.page = running.task.next_page(running.page)  # others were passed over without an answer
        if isinstance(event, Raised):
            raise event.error
        if isinstance(event, Died) and not running.has_left_rest:
            yield from self._after_death(running, event)

    def _after_death(self, running: _Running, death: Died) -> Iterator[PageRecord]:
        task = replace(running.task, first_page=max(running.page, running.task.first_page), sha256=running.sha256)
        was_killed = death.reason.startswith("took longer")
        if death.is_culprit is False:
            self._ready.appendleft(task)
        elif not was_killed and not running.is_retry:
            self._suspects.append(task)  # it may have been its neighbour, or another program that took all memory
        else:
            reason = death.reason if was_killed else f"the process that worked on it was twice {death.reason}"
            seconds = time.monotonic() - running.since
            failed = failed_page(task, running.page, running.sha256, seconds, self.facts.fingerprint, reason)
            record, following = after_failure(task, failed)
            if record is not None:
                yield record
            if following is not None:
                self._ready.appendleft(following)

    def _enforce_limit(self) -> None:
        now = time.monotonic()
        for ticket, running in self._running.items():
            if now - running.since > self._limit:
                self._pool.kill(ticket, f"took longer than {self._limit:g} s")


class SerialEngine:
    """This process alone, one page after the other: nothing can be killed, so that a page that hangs or crashes does.

    Args:
        work: not yet prepared.
    """

    def __init__(self, work: PageWork) -> None:
        self._work = work
        self._facts = work.prepare()

    @property
    def facts(self) -> Facts:
        """As `Engine.facts`."""
        return self._facts

    def run(self, tasks: Iterator[Task | None], *, is_stopped: Callable[[], bool]) -> Iterator[Outcome | None]:
        """As `Engine.run`."""
        for task in tasks:
            if is_stopped():
                return
            if task is None:
                yield None
                continue
            waiting = deque([task])
            while waiting and not is_stopped():
                for answer in self._work(waiting.popleft()):
                    if isinstance(answer, Rest):
                        waiting.extend(pieces(answer))
                    elif not isinstance(answer, Waiting):
                        yield answer

    def close(self, *, graceful: bool) -> None:
        """As `Engine.close`."""


def pieces(rest: Rest) -> Iterator[Task]:
    """Yield tasks for the pages that are left of a file."""
    for first in range(rest.first_page, rest.page_count + 1, _PAGES_AT_ONCE):
        last = min(first + _PAGES_AT_ONCE - 1, rest.page_count)
        yield replace(
            rest.task,
            first_page=first,
            last_page=last,
            page_count=rest.page_count,
            sha256=rest.sha256,
            done_for_sha256=None,
        )


def after_failure(task: Task, failure: PageRecord) -> tuple[PageRecord | None, Task | None]:
    """Return what to tell of a page that no process survives, and the task that goes on; None for nothing.

    Where the number of pages is not known, a process that looks for the next one tells of both.
    """
    page = failure.page
    if task.failure is not None and task.failure.page == page:  # nor does any survive to look for the next one
        return task.failure, None
    if task.page_count is None:
        return None, replace(task, first_page=page, failure=failure)
    has_more = task.last_page is not None and page < task.last_page
    return failure, replace(task, first_page=page + 1) if has_more else None


def failed_page(task: Task, page: int, sha256: str | None, seconds: float, settings: str, reason: str) -> PageRecord:
    """Return the record of a page that no process has lived to tell of."""
    return PageRecord(
        path=task.scan.name,
        page=page,
        is_last=task.page_count in (None, page),
        size=task.scan.size,
        mtime_ns=task.scan.mtime_ns,
        version=task.scan.version,
        sha256=sha256,
        status="failed",
        seconds=round(seconds, 3),
        settings=settings,
        error=reason,
    )
