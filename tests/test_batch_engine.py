"""The local engine over work that crashes, hangs and fails on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from works import OddPages

from dbcpu.batch.local import LocalEngine
from dbcpu.batch.records import PageRecord, Scan, Task
from dbcpu.errors import OutputError
from dbcpu.workers.pool import WorkerPool


def outcome(folder: Path, *tasks: Task, seconds: float = 30, workers: int = 2, pages: int = 3) -> dict[str, list[str]]:
    """What became of the pages of each scan, in their order: "ok", or the error."""
    pool = WorkerPool(OddPages(str(folder), pages), workers=workers)
    engine = LocalEngine(pool, seconds_per_page=seconds)
    records: dict[tuple[str, int], PageRecord] = {}
    try:
        for record in engine.run(iter(tasks)):
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


def test_pages_that_behave_are_done(tmp_path: Path):
    names = [f"{number}.tif" for number in range(9)]
    assert outcome(tmp_path, *map(scan, names)) == {name: ["ok"] * 3 for name in names}


def test_a_page_that_crashes_its_process_fails_and_its_neighbours_do_not(tmp_path: Path):
    found = outcome(tmp_path, scan("a"), scan("crash@2"), scan("b"), scan("c"))
    crash = "the process that worked on it was twice killed by SIGSEGV"
    assert found == {"a": ["ok"] * 3, "b": ["ok"] * 3, "c": ["ok"] * 3, "crash@2": ["ok", crash]}


def test_a_crash_that_does_not_happen_again_costs_nothing(tmp_path: Path):
    assert outcome(tmp_path, scan("a"), scan("crash once@3"), scan("b")) == {
        "a": ["ok"] * 3,
        "b": ["ok"] * 3,
        "crash once@3": ["ok"] * 3,
    }


def test_a_page_that_hangs_fails_and_its_neighbours_do_not(tmp_path: Path):
    found = outcome(tmp_path, scan("hang@1"), scan("a"), scan("b"), seconds=1, workers=1)
    assert found == {"a": ["ok"] * 3, "b": ["ok"] * 3, "hang@1": ["took longer than 1 s"]}


def test_where_pages_can_be_read_in_any_order_only_the_bad_one_fails(tmp_path: Path):
    found = outcome(tmp_path, scan("hang@5.pdf"), scan("crash@20.pdf"), seconds=1, pages=20)
    assert found["hang@5.pdf"] == ["ok"] * 4 + ["took longer than 1 s"] + ["ok"] * 15
    assert [error == "ok" for error in found["crash@20.pdf"]] == [True] * 19 + [False]


def test_pages_that_were_done_before_are_not_blamed(tmp_path: Path):
    task = Task(scan=Scan(path="crash@3", name="crash@3"), done_pages=frozenset({1, 2}))
    pool = WorkerPool(OddPages(str(tmp_path)), workers=1)
    engine = LocalEngine(pool, seconds_per_page=30)
    records = [record for record in engine.run(iter([task])) if isinstance(record, PageRecord)]
    engine.close(graceful=True)
    assert [(record.page, record.status) for record in records] == [(3, "failed")]


def test_an_error_that_is_not_the_fault_of_a_page_ends_the_run(tmp_path: Path):
    with pytest.raises(OutputError, match="no room"):
        outcome(tmp_path, scan("a"), scan("full disk@1"))
