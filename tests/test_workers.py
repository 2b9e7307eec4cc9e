"""The pool of worker processes: what comes back, and what happens when processes hang or die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from works import Chores

from dbcpu.errors import CheckpointError, OutputError
from dbcpu.workers.pool import WorkerPool
from dbcpu.workers.work import Answered, Died, Finished, Raised

Pool = WorkerPool[tuple[str, float], object]


@contextlib.contextmanager
def pool_of(workers: int = 1, lanes: int = 2) -> Iterator[Pool]:
    pool: Pool = WorkerPool(Chores(), workers=workers, lanes=lanes)
    try:
        yield pool
    finally:
        pool.close(graceful=False)


def events_until(pool: Pool, is_over: Callable[[list[Any]], bool]) -> list[Any]:
    events: list[Any] = []
    deadline = time.monotonic() + 30
    while not is_over(events) and time.monotonic() < deadline:
        events += pool.wait(1)
    return events


def ended(events: list[Any]) -> set[int]:
    return {event.ticket for event in events if not isinstance(event, Answered)}


def test_answers_arrive_in_order_and_then_the_end():
    with pool_of() as pool:
        pool.submit(7, ("count", 3))
        events = events_until(pool, lambda events: ended(events) == {7})
    assert events == [Answered(7, 0), Answered(7, 1), Answered(7, 2), Finished(7)]


def test_workers_are_forked_from_one_process_that_prepared_the_work():
    with pool_of(workers=2) as pool:
        for ticket in range(4):
            pool.submit(ticket, ("where", 0))
        events = events_until(pool, lambda events: len(ended(events)) == 4)
        nursery = pool.facts["prepared_in"]
    places = [event.answer for event in events if isinstance(event, Answered)]
    assert {place[1:] for place in places} == {(nursery, nursery)}
    assert os.getpid() not in {place[0] for place in places}


def test_a_pool_has_room_for_so_many_tasks_and_refuses_more():
    with pool_of(workers=2, lanes=2) as pool:
        assert pool.free == 4
        for ticket in range(4):
            pool.submit(ticket, ("sleep", 30))
        assert pool.free == 0
        with pytest.raises(ValueError, match="no worker is free"):
            pool.submit(4, ("count", 1))


def test_a_task_alone_has_a_process_for_itself():
    with pool_of(workers=2, lanes=2) as pool:
        pool.submit(0, ("sleep", 30), alone=True)
        assert pool.free == 2
        pool.submit(1, ("sleep", 30))
        pool.submit(2, ("sleep", 30))
        assert (pool.free, pool.has_idle_worker) == (0, False)
        with pytest.raises(ValueError, match="no worker is free"):
            pool.submit(3, ("count", 1), alone=True)


def test_an_error_of_the_work_comes_back_as_it_is():
    with pool_of() as pool:
        pool.submit(0, ("raise", 0))
        pool.submit(1, ("surprise", 0))
        events = {event.ticket: event for event in events_until(pool, lambda events: ended(events) == {0, 1})}
        assert pool.free == 2
    assert isinstance(events[0], Raised)
    assert isinstance(events[0].error, OutputError)
    assert str(events[0].error) == "disk: no room"
    assert "_LocalError" in str(events[1].error)


def test_an_error_while_preparing_is_raised_where_the_pool_is_made():
    with pytest.raises(CheckpointError, match="final: not a checkpoint"):
        WorkerPool(Chores(broken=True), workers=1)


@pytest.mark.parametrize(
    ("task", "reason"), [(("signal", signal.SIGSEGV), "killed by SIGSEGV"), (("exit", 3), "ended with code 3")]
)
def test_a_crash_costs_the_task_alone_and_a_new_worker_takes_over(task: tuple[str, float], reason: str):
    with pool_of() as pool:
        pool.submit(0, task)
        assert events_until(pool, lambda events: ended(events) == {0}) == [Died(0, reason, True)]
        pool.submit(1, ("count", 1))
        assert events_until(pool, lambda events: ended(events) == {1}) == [Answered(1, 0), Finished(1)]


def test_of_two_tasks_in_a_process_that_crashed_either_may_be_the_cause():
    with pool_of() as pool:
        pool.submit(0, ("sleep", 30))
        pool.submit(1, ("exit", 1))
        events = events_until(pool, lambda events: ended(events) == {0, 1})
    assert events == [Died(0, "ended with code 1", None), Died(1, "ended with code 1", None)]


def test_a_task_that_hangs_is_killed_and_its_neighbour_is_no_culprit():
    with pool_of() as pool:
        pool.submit(0, ("spin", 0))
        pool.submit(1, ("sleep", 30))
        pool.kill(0, "took longer than 1 second")
        pool.kill(0, "was killed twice")
        pool.kill(5, "was never there")
        events = events_until(pool, lambda events: ended(events) == {0, 1})
        reason = "took longer than 1 second"
        assert events == [Died(0, reason, True), Died(1, reason, False)]
        assert pool.free == 2


def test_what_workers_log_reaches_the_loggers_of_this_process(warnings_logged: pytest.LogCaptureFixture):
    with pool_of() as pool:
        pool.submit(0, ("log", 12))
        events_until(pool, lambda events: ended(events) == {0})
    assert [record.getMessage() for record in warnings_logged.records] == ["task 12 speaks"]


def test_a_graceful_end_lets_running_tasks_finish():
    pool: Pool = WorkerPool(Chores(), workers=1)
    pool.submit(0, ("sleep", 0.3))
    pids = pool.pids
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started >= 0.29
    assert not any(map(is_alive, pids))


def test_a_pool_that_ends_at_once_leaves_no_worker_that_could_still_write():
    for _ in range(5):
        pool: Pool = WorkerPool(Chores(), workers=2)
        pool.submit(0, ("sleep", 60))
        pool.submit(1, ("spin", 0))
        pids = pool.pids
        pool.close(graceful=False)
        assert not any(map(is_alive, pids))


def test_waiting_ends_when_something_else_is_ready_too():
    alarm, button = Pipe(duplex=False)
    with pool_of() as pool:
        button.send("now")
        assert pool.wait(60, also=alarm) == []
        pool.submit(0, ("count", 1))
        assert alarm.recv() == "now"
        assert pool.wait(60, also=alarm) != []


def test_no_worker_outlives_a_pool_whose_process_was_killed():
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from works import Chores\n"
        "from dbcpu.workers.pool import WorkerPool\n"
        "pool = WorkerPool(Chores(), workers=2)\n"
        "pool.submit(0, ('sleep', 60)); pool.submit(1, ('spin', 0))\n"
        "print(pool.facts['prepared_in'], *pool.pids, flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    deadline = time.monotonic() + 20
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 3
    assert not any(map(is_alive, pids))


def test_a_nursery_that_was_killed_is_replaced():
    with pool_of() as pool:
        first = pool.facts["prepared_in"]
        pool.submit(0, ("sleep", 60))
        os.kill(first, signal.SIGKILL)
        os.kill(pool.pids[0], signal.SIGKILL)
        assert ended(events_until(pool, lambda events: ended(events) == {0})) == {0}
        pool.submit(1, ("where", 0))
        (answered, _) = events_until(pool, lambda events: ended(events) == {1})
    assert answered.answer[1] == pool.facts["prepared_in"] != first


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
