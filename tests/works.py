"""Kinds of work for tests of the worker pool; imported by its processes."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from dbcpu.batch.records import PageRecord, Rest, Task
from dbcpu.batch.work import Facts
from dbcpu.errors import CheckpointError, OutputError


class Chores:
    """Does what a task says: `(verb, argument)`."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.prepared_in: int | None = None

    def prepare(self) -> object:
        if self.broken:
            raise CheckpointError("not a checkpoint", where="final")
        self.prepared_in = os.getpid()
        return {"prepared_in": self.prepared_in}

    def __call__(self, task: tuple[str, float]) -> Iterator[object]:
        verb, argument = task
        if verb == "count":
            yield from range(int(argument))
        elif verb == "where":
            yield os.getpid(), os.getppid(), self.prepared_in
        elif verb == "sleep":
            time.sleep(argument)
        else:
            misbehave(verb, argument)


def misbehave(verb: str, argument: float) -> None:
    if verb == "spin":  # holds the interpreter, as a decoder does that never comes back
        while True:
            pass
    elif verb == "signal":
        os.kill(os.getpid(), int(argument))
        signal.pause()
    elif verb == "exit":
        os._exit(int(argument))
    elif verb == "log":
        logging.getLogger("dbcpu.works").warning("task %d speaks", argument)
    elif verb == "raise":
        raise OutputError("no room", where="disk")
    elif verb == "surprise":
        raise _LocalError(lambda: None)


class OddPages:
    """Pretends to read pages; some names make its process crash or hang, once or always."""

    def __init__(self, folder: str, pages: int = 3) -> None:
        self.detector: dict[str, object] = {}
        self.threads = 1
        self.folder = Path(folder)
        self.pages = pages

    def prepare(self) -> Facts:
        return Facts(model="none", fingerprint="f", settings={})

    def __call__(self, task: Task) -> Iterator[PageRecord | Rest]:
        last = task.last_page or self.pages
        for page in range(task.first_page, last + 1):
            if page not in task.done_pages:
                self._suffer(task.scan.name, page)
                yield self._record(task, page)
            if task.page_count is None and task.scan.name.endswith(".pdf") and page < self.pages:
                yield Rest(task=task, first_page=page + 1, page_count=self.pages, sha256="s")
                return

    def _record(self, task: Task, page: int) -> PageRecord:
        return PageRecord(
            path=task.scan.name,
            page=page,
            is_last=page == self.pages,
            size=0,
            mtime_ns=0,
            sha256="s",
            status="done",
            settings="f",
        )

    def _suffer(self, name: str, page: int) -> None:
        fate, _, at = name.partition("@")
        if int(at.partition(".")[0] or 0) != page:
            return
        mark = self.folder / f"{name}.mark"
        if fate == "hang":
            time.sleep(60)
        elif fate == "crash" or (fate == "crash once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)
        elif fate == "crash all":
            time.sleep(0.2)  # as pages do, until the one before has been told of
            process_of_ray = int(Path(f"/proc/{os.getppid()}/stat").read_text().split()[3])
            os.kill(process_of_ray, signal.SIGKILL)
            time.sleep(60)
        elif fate == "freeze all":  # what the process above asks of the nursery is never answered
            time.sleep(0.2)
            (self.folder / f"{os.getppid()}.frozen").touch()
            if not (self.folder / "over").exists():
                os.kill(os.getppid(), signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGKILL)
        elif fate == "full disk":
            raise OutputError("no room", where="disk")


class _LocalError(Exception):
    """Cannot be pickled when it carries a function."""
