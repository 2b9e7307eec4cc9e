"""The Ray engine: parcels of tasks through a pool of actors, and what to do about those that are lost."""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dbcpu.batch.addresses import is_address
from dbcpu.batch.local import after_failure, failed_page, pieces
from dbcpu.batch.records import PageRecord
from dbcpu.cluster.connection import connected
from dbcpu.cluster.costs import CostModel, cut_parcel
from dbcpu.cluster.desk import Desk
from dbcpu.cluster.stream import IN_FLIGHT, Stream
from dbcpu.cluster.worker import Answer, Parcel, Shipment
from dbcpu.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ray.actor import ActorHandle

    from dbcpu.batch.records import Outcome, Scan, Task
    from dbcpu.batch.work import Facts, PageWork
    from dbcpu.cluster.desk import News

logger = logging.getLogger(__name__)
_LONGEST_WAIT = 0.5  # seconds between looks at what the user wants
LOOK_AHEAD = 16  # tasks for each worker, from which parcels are cut
_SECONDS_BETWEEN_LOOKS = 2.0  # at the nodes
_SECONDS_UNTIL_LOST = 10.0  # of a parcel whose node is gone, in which Ray may begin it elsewhere
_SECONDS_UNTIL_STUCK = 120.0  # without a word of any worker, the longest start of one included
_MOST_DEATHS = 2  # of workers that had only one page, as in the local engine


@dataclass(eq=False)
class _Out:
    """A parcel on its way."""

    parcel: Parcel
    since: float
    deaths: int
    node: str | None = None
    page: int = 1  # of a suspect, that is worked on
    sha256: str | None = None
    lost_since: float | None = None


class RayEngine:
    """Workers on the machines of a Ray cluster. An `Engine`.

    Tasks are cut into parcels of a few seconds, which Ray Data hands to a pool of actors; there are never more on their
    way than keep every worker busy, so that neither memory nor the object store fills. A parcel whose worker has died
    comes back, and its tasks go out again one by one: the page that ends another worker then is recorded as failed. A
    parcel whose machine is gone for good goes out once more; of two answers, the first counts. Ray Data may also lose
    one and wait for it for ever, as for a worker that is frozen: when no worker says anything, a new pool takes over.

    Args:
        work: not yet prepared; paths in it and in the tasks have to be the same on all machines.
        address: of the cluster, as in `connected`.
        workers: how many; None for as many as the cluster has room for, also when it grows.
        cpus: of this machine, for a Ray of its own.
        seconds_per_page: after which the process that works on a page is killed.

    Raises:
        DbcpuError: the work cannot be prepared, or there is no Ray.
    """

    def __init__(
        self, work: PageWork, *, address: str | None, workers: int | None, cpus: int, seconds_per_page: float
    ) -> None:
        self._facts = copy.copy(work).prepare()  # a copy: the work itself goes to other machines
        self._connection = contextlib.ExitStack()
        self._connection.enter_context(connected(address, cpus=cpus))
        self._workers = workers or _room(work.threads)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._new_desk: Callable[[], ActorHandle[Any]] = (
            ray.remote(Desk)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1000, scheduling_strategy=here)
            .remote
        )
        self._desk = self._new_desk()
        shipment = Shipment(
            work=work,
            files=_files(work),
            facts=self._facts,
            level=logging.getLogger("dbcpu").getEffectiveLevel(),
            seconds_per_page=seconds_per_page,
        )
        # Not begun before there is something to do: workers take seconds to get ready.
        self._begin_stream: Callable[[], Stream] = lambda: Stream(
            self._desk,
            shipment,
            first=min(self._out),
            workers=self._workers,
            most_workers=workers,
            cpus=work.threads,
        )
        self._stream: Stream | None = None
        self._costs = CostModel()
        self._waiting: deque[Task] = deque()
        self._out: dict[int, _Out] = {}
        self._number = 0  # of the next parcel
        self._life: str | None = None
        self._nodes: set[str] = set()  # that workers are on, or were
        self._looked_at = self._heard_at = self._resent_at = time.monotonic()

    @property
    def facts(self) -> Facts:
        """As `Engine.facts`."""
        return self._facts

    def run(self, tasks: Iterator[Task | None], *, is_stopped: Callable[[], bool]) -> Iterator[Outcome | None]:
        """As `Engine.run`."""
        while self._lay_out(tasks, is_stopped=is_stopped) or self._out:
            if not self._out:
                yield None
                continue
            try:
                self._stream = self._stream or self._begin_stream()
                answers = self._stream.wait(_LONGEST_WAIT)
            except Exception as error:
                raise WorkerError(f"Ray has given up: {' '.join(str(error).split())[-500:]}") from error
            outcomes = [outcome for number, content in answers for outcome in self._settled(number, content)]
            if time.monotonic() - self._looked_at >= _SECONDS_BETWEEN_LOOKS or not answers:
                outcomes += self._heard(ray.get(self._desk.news.remote()))
            if time.monotonic() - self._looked_at >= _SECONDS_BETWEEN_LOOKS:
                self._look_for_lost()
                outcomes += self._look_for_stuck()
            yield from outcomes
            if not outcomes:
                yield None

    def close(self, *, graceful: bool) -> None:
        """As `Engine.close`."""
        with contextlib.suppress(Exception):  # of a cluster that is gone; there is nothing left to close then
            if graceful and self._stream is not None:
                ray.get(self._desk.close.remote())
                self._stream.join(_SECONDS_UNTIL_LOST)
            ray.kill(self._desk)
        self._connection.close()

    # Parcels go out

    def _lay_out(self, tasks: Iterator[Task | None], *, is_stopped: Callable[[], bool]) -> bool:
        """Send parcels until every worker has enough; whether any was sent, or will be."""
        if is_stopped():
            self._waiting.clear()
            self._desk.stop.remote()
            return False
        new: dict[int, bytes] = {}
        will_come = False
        while len(self._out) < (IN_FLIGHT + 1) * self._workers:
            will_come = will_come or self._look_ahead(tasks)
            if not self._waiting:
                break
            cut = cut_parcel(self._waiting, self._costs, workers=self._workers)
            new.update(self._outgoing(Parcel(tasks=tuple(cut))))
        self._send(new)
        return bool(new) or will_come

    def _look_ahead(self, tasks: Iterator[Task | None]) -> bool:
        """Take tasks until there are enough to cut parcels from; whether the next one is not known yet."""
        while len(self._waiting) < LOOK_AHEAD * self._workers:
            try:
                task = next(tasks)
            except StopIteration:
                break
            if task is None:
                return True
            self._waiting.append(replace(task, scan=_everywhere(task.scan)))
        return False

    def _outgoing(self, parcel: Parcel, deaths: int = 0) -> dict[int, bytes]:
        out = _Out(parcel, time.monotonic(), deaths)
        if not self._out:  # nobody had anything to say
            self._heard_at = out.since
        out.page, out.sha256 = parcel.tasks[0].first_page, parcel.tasks[0].sha256
        self._out[self._number] = out
        self._number += 1
        return {self._number - 1: pickle.dumps(parcel)}

    def _send(self, parcels: dict[int, bytes]) -> None:
        if parcels:
            ray.get(self._desk.lay_out.remote(parcels, self._number))  # calls may overtake one another

    # Answers come back

    def _settled(self, number: int, content: bytes) -> Iterator[Outcome]:
        answer: Answer = pickle.loads(content)  # noqa: S301 - from our workers
        for record in answer.log:
            logging.getLogger(record.name).handle(record)
        if answer.error is not None:
            raise answer.error
        if number not in self._out:  # the answer of one that was taken for lost
            return
        if self._out[number].parcel.is_suspect:  # what it has told has to be heard before its end
            yield from self._heard(ray.get(self._desk.news.remote()))
        self._heard_at = time.monotonic()
        out = self._out.pop(number)
        self._desk.settle.remote(number)
        for rest in answer.rests:
            self._waiting.extend(pieces(rest))
        for outcome in answer.outcomes:
            if isinstance(outcome, PageRecord):
                self._costs.learn(outcome)
            yield outcome
        if answer.before is None:
            self._send(self._outgoing(out.parcel, out.deaths))
        elif answer.before > 0:
            yield from self._after_death(out)

    def _heard(self, news: News) -> Iterator[Outcome]:
        if news.life != self._life:
            if self._life is not None:  # the desk has died, and forgotten everything
                self._send({number: pickle.dumps(out.parcel) for number, out in self._out.items()})
            self._life = news.life
        self._nodes.update(news.nodes)
        if news.is_busy or news.nodes:
            self._heard_at = time.monotonic()
        for number, node in news.begun.items():
            if number in self._out:
                self._out[number].node, self._out[number].lost_since = node, None
        for number, outcome in news.told:
            out = self._out.get(number)
            if out is None:
                continue
            out.parcel = replace(out.parcel, tasks=(out.parcel.tasks[0].told(outcome),))
            if isinstance(outcome, PageRecord):
                out.page, out.sha256, out.since = outcome.page + 1, outcome.sha256, time.monotonic()
            yield outcome

    def _after_death(self, out: _Out) -> Iterator[PageRecord]:
        """Go on after a worker that died with a parcel."""
        if not out.parcel.is_suspect:
            logger.info("a worker has died; the %d files it had go out again one by one", len(out.parcel.tasks))
            for task in out.parcel.tasks:
                self._send(self._outgoing(Parcel(tasks=(task,), is_suspect=True)))
            return
        task = out.parcel.tasks[0]
        page = task.next_page(out.page)
        deaths = out.deaths + 1 if page == task.first_page else 1
        task = replace(task, first_page=page, sha256=out.sha256)
        if deaths < _MOST_DEATHS:
            self._send(self._outgoing(Parcel(tasks=(task,), is_suspect=True), deaths))
            return
        reason = "the worker that had it died more than once"
        failed = failed_page(task, page, out.sha256, time.monotonic() - out.since, self._facts.fingerprint, reason)
        record, following = after_failure(task, failed)
        if record is not None:
            yield record
        if following is not None:
            self._send(self._outgoing(Parcel(tasks=(following,), is_suspect=True)))

    # Machines go

    def _look_for_lost(self) -> None:
        """Send parcels once more that Ray cannot begin again: their machine is gone, and there is no room elsewhere."""
        now = self._looked_at = time.monotonic()
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for gone in self._nodes - alive:
            logger.warning("a machine is gone (%s); its pages go to others", gone[:8])
        self._nodes &= alive
        is_idle = not any(out.node in alive for out in self._out.values())
        is_silent = self._nodes and is_idle and now - max(self._heard_at, self._resent_at) > _SECONDS_UNTIL_LOST
        for number, out in list(self._out.items()):
            if out.node is None:  # on its way, or waiting in a worker that is gone
                is_lost = is_silent
            elif out.node in alive:
                is_lost = False
            else:
                out.lost_since = out.lost_since or now
                is_lost = now - out.lost_since > _SECONDS_UNTIL_LOST
            if is_lost:
                del self._out[number]
                self._desk.settle.remote(number)
                task = out.parcel.tasks[0]
                if out.parcel.is_suspect:
                    task = replace(task, first_page=max(out.page, task.first_page), sha256=out.sha256)
                parcel = replace(out.parcel, tasks=(task, *out.parcel.tasks[1:]))
                self._send(self._outgoing(parcel, out.deaths))
                self._resent_at = now

    def _look_for_stuck(self) -> Iterator[PageRecord]:
        """Leave a pool behind of which nothing is heard, though its machines are alive."""
        if not self._nodes or time.monotonic() - self._heard_at < _SECONDS_UNTIL_STUCK:
            return
        logger.warning("no worker has said anything for %g s; new ones take their place", _SECONDS_UNTIL_STUCK)
        ray.kill(self._desk)  # which ends the old stream, and with it the old workers
        self._desk, self._life, self._stream = self._new_desk(), None, None
        out, self._out = self._out, {}
        for parcel in out.values():
            if parcel.node is None:
                self._send(self._outgoing(parcel.parcel, parcel.deaths))
            else:
                yield from self._after_death(parcel)
        self._heard_at = time.monotonic()


def _room(cpus: int) -> int:
    """Return how many workers of so many CPUs the cluster has room for, at least one: it may still grow."""
    rooms = (int(node["Resources"].get("CPU", 0)) // cpus for node in ray.nodes() if node["Alive"])
    return max(1, sum(rooms))


def _files(work: PageWork) -> dict[str, tuple[str, Any]]:
    """Put the files that the detector is loaded from into the object store, from where each node gets them once."""
    paths = {key: work.detector.get(key) for key in ("weights", "config")}
    return {key: (Path(path).name, ray.put(Path(path).read_bytes())) for key, path in paths.items() if path is not None}


def _everywhere(scan: Scan) -> Scan:
    """Return a scan whose path does not depend on where a process runs."""
    return scan if is_address(scan.path) else replace(scan, path=str(Path(scan.path).absolute()))
