"""The stateful class that Ray Data runs on the machines: a worker process for pages, with its model loaded."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from dbcpu.batch.local import LocalEngine
from dbcpu.errors import WorkerError
from dbcpu.workers.pool import WorkerPool

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from dbcpu.batch.records import Outcome, Rest, Task
    from dbcpu.batch.work import Facts, PageWork

    Batch = dict[str, np.ndarray[Any, Any]]

_SECONDS_BETWEEN_WORDS = 5.0  # to the desk, of a worker that works


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Tasks that a worker gets at once.

    Attributes:
        tasks: in their order.
        is_suspect: whether a worker died while it had it: it holds one task then, and what is done of it is told
            page by page.
    """

    tasks: tuple[Task, ...]
    is_suspect: bool = False


@dataclass(kw_only=True)
class Answer:
    """What became of a parcel.

    Attributes:
        outcomes: of its pages.
        rests: of files, for other parcels.
        error: that is not the fault of a page.
        before: how often it had been begun, by workers that are no more: nothing was done then. `STOPPED` where nothing
            is to be begun any more, None where it did not arrive.
        log: records for the driver.
    """

    outcomes: list[Outcome]
    rests: list[Rest]
    error: Exception | None = None
    before: int | None = None
    log: list[logging.LogRecord]


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """The work, with the content of files that only the driver's machine has.

    Attributes:
        work: to prepare.
        files: names and contents (in the object store, once a node), by the keyword of `PageWork.detector`.
        facts: what preparing it gave to the driver.
        level: of the log.
        seconds_per_page: as in `LocalEngine`.
    """

    work: PageWork
    files: dict[str, tuple[str, ObjectRef[Any]]]
    facts: Facts
    level: int
    seconds_per_page: float


class PageWorker:
    """Works on parcels, one after the other, in one process with two lanes that may crash or hang.

    The process is that of the local engine: a page that crashes it fails here, in the same words; Ray never knows.
    """

    def __init__(self, shipment: Shipment, desk: ActorHandle[Any]) -> None:
        self._desk = desk
        self._log = _Collector()
        logger = logging.getLogger("dbcpu")
        logger.handlers, logger.propagate = [self._log], False
        logger.setLevel(shipment.level)
        self._folder = tempfile.TemporaryDirectory(prefix="dbcpu-")
        work = shipment.work
        for number, (keyword, (name, content)) in enumerate(shipment.files.items()):
            path = Path(self._folder.name) / str(number) / name
            path.parent.mkdir()
            path.write_bytes(ray.get(content))
            work.detector[keyword] = path
        self._error: Exception | None = None
        self._rests: list[Rest] = []
        self._node = ray.get_runtime_context().get_node_id()
        try:
            pool = WorkerPool(work, workers=1)
        except Exception as error:  # Ray would try again for ever; the driver is told with the first parcel
            self._error = error
        else:
            self._engine = LocalEngine(
                pool, seconds_per_page=shipment.seconds_per_page, on_rest=lambda rest: self._rests.append(rest)
            )
            if self._engine.facts.fingerprint != shipment.facts.fingerprint:
                self._error = WorkerError(
                    f"machine {self._node[:8]} would give other results: another version of dbcpu or its libraries",
                    remedy="install the same everywhere; with different CPUs, give --precision fp32 or bf16",
                )
        ray.get(self._desk.join.remote(self._node))
        threading.Thread(target=_end_with, args=(desk,), daemon=True).start()

    def __call__(self, batch: Batch) -> Batch:
        """Work on the parcel that a batch of one row holds."""
        number, content = int(batch["number"][0]), batch["parcel"][0]
        answer = self._answer(number, content)
        return {"number": np.array([number]), "answer": np.array([pickle.dumps(answer)], dtype=object)}

    def _answer(self, number: int, content: bytes) -> Answer:
        self._rests = []
        answer = Answer(outcomes=[], rests=self._rests, error=self._error, log=self._log.records)
        if self._error is None and content:
            answer.before = ray.get(self._desk.begin.remote(number, self._node))
            if answer.before == 0:
                self._work(number, pickle.loads(content), answer)  # noqa: S301 - from our driver
        self._log.records = []
        return answer

    def _work(self, number: int, parcel: Parcel, answer: Answer) -> None:
        said_at = time.monotonic()
        try:
            for outcome in self._engine.run(iter(parcel.tasks), is_stopped=bool):
                if time.monotonic() - said_at > _SECONDS_BETWEEN_WORDS:
                    said_at = time.monotonic()
                    self._desk.go_on.remote()
                if outcome is not None and parcel.is_suspect:
                    ray.get(self._desk.tell.remote(number, outcome))
                elif outcome is not None:
                    answer.outcomes.append(outcome)
        except Exception as error:
            answer.error = error


def _end_with(desk: ActorHandle[Any]) -> None:
    """End this process when the driver has left it behind; Ray itself would wait until it has nothing to do."""
    try:
        while True:
            time.sleep(_SECONDS_BETWEEN_WORDS)
            ray.get(desk.ask.remote())
    except Exception:
        os._exit(1)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        plain = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, None, None)
        self.records.append(plain)
