"""Kinds of work for tests of the worker pool; imported by its processes."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator

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


class _LocalError(Exception):
    """Cannot be pickled when it carries a function."""
