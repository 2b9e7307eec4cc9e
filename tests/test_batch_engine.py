"""Both engines over work that crashes, hangs and fails on purpose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from works import OddPages

from dbcpu.batch.local import Engine, LocalEngine
from dbcpu.batch.records import PageRecord, Rest, Scan, Task, Unchanged
from dbcpu.errors import OutputError
from dbcpu.workers.pool import WorkerPool


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)], autouse=True)
def engine_name(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_of_two")
    name: str = request.param
    return name


def start(
    name: str,
    folder: Path,
    *,
    seconds: float = 30,
    workers: int = 2,
    pages: int = 3,
    kind: type[OddPages] = OddPages,
) -> Engine:
    work = kind(str(folder), pages)
    if name == "local":
        return LocalEngine(WorkerPool(work, workers=workers), seconds_per_page=seconds)
    from dbcpu.cluster.engine import RayEngine

    return RayEngine(work, address=None, workers=workers, cpus=2, seconds_per_page=seconds)


def outcome(name: str, folder: Path, *tasks: Task, **settings: Any) -> dict[str, list[str]]:
    """What became of the pages of each scan, in their order: "ok", or the error."""
    engine = start(name, folder, **settings)
    records: dict[tuple[str, int], PageRecord] = {}
    try:
        for record in engine.run(iter(tasks), is_stopped=lambda: False):
            if isinstance(record, PageRecord):
                assert (record.path, record.page) not in records, "a page ended twice"
                records[record.path, record.page] = record
    finally:
        engine.close(graceful=False)
    for task in tasks:
        last = [record.page for record in records.values() if record.path == task.scan.name and record.is_last]
        assert len(last) == 1, f"{task.scan.name}: {last}"
    found: dict[str, list[str]] = {}
    for (path, _), record in sorted(records.items()):
        found.setdefault(path, []).append(record.error or "ok")
    return found


def scan(name: str) -> Task:
    return Task(scan=Scan(path=name, name=name))


def test_pages_that_behave_are_done(engine_name: str, tmp_path: Path):
    names = [f"{number}.tif" for number in range(9)]
    assert outcome(engine_name, tmp_path, *map(scan, names)) == {name: ["ok"] * 3 for name in names}


def test_a_page_that_crashes_its_process_fails_and_its_neighbours_do_not(engine_name: str, tmp_path: Path):
    found = outcome(engine_name, tmp_path, scan("a"), scan("crash@2"), scan("b"), scan("c"))
    crash = "the process that worked on it was twice killed by SIGSEGV"
    assert found == {"a": ["ok"] * 3, "b": ["ok"] * 3, "c": ["ok"] * 3, "crash@2": ["ok", crash]}


def test_a_crash_that_does_not_happen_again_costs_nothing(engine_name: str, tmp_path: Path):
    assert outcome(engine_name, tmp_path, scan("a"), scan("crash once@3"), scan("b")) == {
        "a": ["ok"] * 3,
        "b": ["ok"] * 3,
        "crash once@3": ["ok"] * 3,
    }


def test_a_page_that_hangs_fails_and_its_neighbours_do_not(engine_name: str, tmp_path: Path):
    found = outcome(engine_name, tmp_path, scan("hang@1"), scan("a"), scan("b"), seconds=1, workers=1)
    assert found == {"a": ["ok"] * 3, "b": ["ok"] * 3, "hang@1": ["took longer than 1 s"]}


def test_where_pages_can_be_read_in_any_order_only_the_bad_one_fails(engine_name: str, tmp_path: Path):
    found = outcome(engine_name, tmp_path, scan("hang@5.pdf"), scan("crash@20.pdf"), seconds=1, pages=20)
    assert found["hang@5.pdf"] == ["ok"] * 4 + ["took longer than 1 s"] + ["ok"] * 15
    assert [error == "ok" for error in found["crash@20.pdf"]] == [True] * 19 + [False]


def test_pages_that_were_done_before_are_not_blamed(engine_name: str, tmp_path: Path):
    task = Task(scan=Scan(path="crash@3", name="crash@3"), done_pages=frozenset({1, 2}))
    engine = start(engine_name, tmp_path, workers=1)
    answers = engine.run(iter([task]), is_stopped=lambda: False)
    records = [record for record in answers if isinstance(record, PageRecord)]
    engine.close(graceful=True)
    assert [(record.page, record.status) for record in records] == [(3, "failed")]


class OpenEnded(OddPages):
    """Only in the file itself is it seen that pages follow one that fails."""

    def __call__(self, task: Task) -> Iterator[PageRecord | Rest]:
        if task.failure is not None and task.failure.page == task.first_page:
            yield replace(task.failure, is_last=task.failure.page == self.pages)
            task = replace(task, first_page=task.first_page + 1)
        yield from super().__call__(task)


@pytest.mark.parametrize("fate", ["hang@1", "crash@1", "crash@2", "crash@3"])
def test_pages_after_one_that_no_process_survives_are_done(engine_name: str, tmp_path: Path, fate: str):
    found = outcome(engine_name, tmp_path, scan(fate), seconds=1, workers=1, kind=OpenEnded)
    assert [error == "ok" for error in found[fate]] == [f"@{page}" not in fate for page in (1, 2, 3)]


def test_pages_of_other_content_are_not_passed_over_after_a_death():
    record = PageRecord(path="a", page=1, size=0, mtime_ns=0, status="done", settings="f")
    task = Task(scan=Scan(path="a", name="a"), done_pages=frozenset({1, 2}), done_for_sha256="s")
    assert task.next_page(1) == 1  # it died before it could tell
    assert task.told(record).next_page(2) == 2
    assert task.told(Unchanged(scan=task.scan)).next_page(1) == 3


def test_an_error_that_is_not_the_fault_of_a_page_ends_the_run(engine_name: str, tmp_path: Path):
    with pytest.raises(OutputError, match="no room"):
        outcome(engine_name, tmp_path, scan("a"), scan("full disk@1"))


def test_a_page_that_ends_more_than_its_process_is_left_behind_by_ray(engine_name: str, tmp_path: Path):
    if engine_name == "local":
        pytest.skip("the process above the worker is that of the run")
    names = [f"{number}.tif" for number in range(9)]
    found = outcome(engine_name, tmp_path, *map(scan, [*names, "crash all@2", "crash all@9.pdf"]), pages=9)
    assert {name: found[name] for name in names} == {name: ["ok"] * 9 for name in names}
    died = "the worker that had it died more than once"
    assert found["crash all@2"] == ["ok", died]
    assert found["crash all@9.pdf"] == ["ok"] * 8 + [died]


def test_workers_that_say_nothing_any_more_are_left_behind_by_ray(
    engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if engine_name == "local":
        pytest.skip("the process above the worker is that of the run")
    monkeypatch.setattr("dbcpu.cluster.engine._SECONDS_UNTIL_STUCK", 15.0)
    names = [f"{number}.tif" for number in range(9)]
    try:
        found = outcome(engine_name, tmp_path, *map(scan, [*names, "freeze all@2"]))
    finally:
        (tmp_path / "over").touch()  # a worker that was left behind may go on when its nursery is gone
        for mark in tmp_path.glob("*.frozen"):
            os.kill(int(mark.stem), signal.SIGKILL)
    assert {name: found[name] for name in names} == {name: ["ok"] * 3 for name in names}
    assert found["freeze all@2"] == ["ok", "the worker that had it died more than once"]


def test_tasks_that_are_late_keep_nothing_waiting(engine_name: str, tmp_path: Path):
    def late() -> Iterator[Task | None]:
        yield None
        for name in ("a", "b"):
            yield scan(name)
            while not any(record.path == name and record.is_last for record in done):
                time.sleep(0.01)
                yield None

    engine = start(engine_name, tmp_path)
    done: list[PageRecord] = []
    try:
        answers = engine.run(late(), is_stopped=bool)
        done.extend(record for record in answers if isinstance(record, PageRecord))
    finally:
        engine.close(graceful=True)
    assert [(record.path, record.page) for record in done] == [(name, page) for name in "ab" for page in (1, 2, 3)]


def test_a_run_that_is_stopped_ends_what_it_has_begun(engine_name: str, tmp_path: Path):
    engine = start(engine_name, tmp_path)
    tasks = (scan(f"{number}.pdf") for number in range(100_000))
    done: list[PageRecord] = []
    answers = engine.run(tasks, is_stopped=lambda: len(done) > 20)
    done.extend(record for record in answers if isinstance(record, PageRecord))
    engine.close(graceful=True)
    assert 20 < len(done) < 1000
