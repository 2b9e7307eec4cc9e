"""What a folder of results remembers, and the lock that keeps a second run away from it."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dbcpu.batch import lock
from dbcpu.batch.lock import locked
from dbcpu.batch.manifest import Manifest
from dbcpu.batch.records import PageRecord, Scan, Task
from dbcpu.errors import OutputError

SCAN = Scan(path="/scans/a.tif", name="a.tif", size=10, mtime_ns=5)
DONE = PageRecord(path="a.tif", page=1, size=10, mtime_ns=5, sha256="aa", status="done", results="a.tif", settings="s")
FIRST, SECOND = (
    replace(DONE, page=page, is_last=page == 2, results=f"a.tif.p{page:04d}", instances=page) for page in (1, 2)
)


def planned(path: Path, scan: Scan = SCAN, settings: str = "s", *, missing: str = "", **options: bool) -> Task | None:
    """What the manifest at `path` says is to be done for a scan."""
    manifest = Manifest(path, settings)
    try:
        return manifest.plan(
            scan,
            force=options.get("force", False),
            retry_failed=options.get("retry_failed", False),
            has_results=lambda results: results != missing,
        )
    finally:
        manifest.close()


def write(path: Path, *records: PageRecord, settings: str = "s") -> None:
    manifest = Manifest(path, settings)
    for record in records:
        manifest.add(record)
    manifest.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifest.jsonl"


def test_a_scan_that_is_new_is_done_from_its_first_page(path: Path):
    assert planned(path) == Task(scan=SCAN)


def test_a_scan_that_is_finished_needs_nothing(path: Path):
    write(path, FIRST, SECOND)
    assert planned(path) is None


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_pages_may_end_in_any_order(path: Path, order: tuple[PageRecord, PageRecord]):
    write(path, *order)
    assert planned(path) is None


def test_a_scan_that_was_begun_goes_on_after_its_pages(path: Path):
    write(path, FIRST)
    assert planned(path) == Task(scan=SCAN, done_pages=frozenset({1}), replaces=True)


@pytest.mark.parametrize(
    ("scan", "settings", "options"),
    [
        (replace(SCAN, size=11), "s", {}),
        (SCAN, "other", {}),
        (SCAN, "s", {"force": True}),
        (replace(SCAN, error="no such file"), "s", {}),
    ],
)
def test_what_has_changed_is_done_again(path: Path, scan: Scan, settings: str, options: dict[str, bool]):
    write(path, FIRST, SECOND)
    assert planned(path, scan, settings, **options) == Task(scan=scan, replaces=True)


def test_a_new_time_stamp_leaves_it_to_the_content(path: Path):
    write(path, FIRST, SECOND)
    task = planned(path, replace(SCAN, mtime_ns=6))
    assert task is not None
    assert (task.done_for_sha256, task.done_pages, task.is_complete) == ("aa", {1, 2}, True)
    manifest = Manifest(path, "s")
    manifest.touch(replace(SCAN, mtime_ns=6))
    manifest.close()
    assert planned(path, replace(SCAN, mtime_ns=6)) is None


def test_a_page_whose_result_was_deleted_is_done_again(path: Path):
    write(path, FIRST, SECOND)
    task = planned(path, missing="a.tif.p0002")
    assert task is not None
    assert task.done_pages == {1}


def test_failures_stay_until_they_are_to_be_tried_again(path: Path):
    failed = replace(SECOND, status="failed", results=None, error="damaged", sha256=None)
    write(path, FIRST, failed)
    assert planned(path) is None
    task = planned(path, retry_failed=True)
    assert task is not None
    assert task.done_pages == {1}


def test_a_page_that_failed_as_the_last_one_may_turn_out_not_to_be(path: Path):
    write(path, replace(FIRST, is_last=True, status="failed", results=None, error="too large"), FIRST)
    assert planned(path) == Task(scan=SCAN, done_pages=frozenset({1}), replaces=True)


def test_a_line_that_was_cut_by_a_kill_is_dropped(path: Path):
    write(path, FIRST, SECOND)
    whole = path.read_bytes()
    for length in (1, len(SECOND.line()) - 1):
        path.write_bytes(whole[:-length])
        assert planned(path) == Task(scan=SCAN, done_pages=frozenset({1}), replaces=True)
        assert path.read_bytes() == FIRST.line().encode()


def test_lines_that_are_no_records_cost_only_themselves(path: Path, warnings_logged: pytest.LogCaptureFixture):
    path.write_text(FIRST.line() + '{"path": 1}\n' + "\0" * 30 + "\n" + SECOND.line())
    assert planned(path) is None
    assert "2 lines are no records" in warnings_logged.text


def test_finishing_sorts_by_the_order_of_the_scans_and_drops_what_was_replaced(path: Path):
    others = [replace(DONE, path=name, results=name) for name in ("z.png", "b.png", "gone.png")]
    manifest = Manifest(path, "s")
    for record in (others[2], SECOND, others[0], FIRST, others[1], replace(FIRST, instances=7)):
        manifest.add(record)
    for name in ("z.png", "a.tif", "b.png"):
        manifest.plan(replace(SCAN, name=name), force=True, retry_failed=False, has_results=bool)
    manifest.finish()
    assert [(r.path, r.page, r.instances) for r in manifest.records()] == [
        ("z.png", 1, 0),
        ("a.tif", 1, 7),
        ("a.tif", 2, 2),
        ("b.png", 1, 0),
        ("gone.png", 1, 0),
    ]
    manifest.add(replace(DONE, path="late.png"))
    manifest.close()
    assert [r.path for r in Manifest(path, "s").records()][-1] == "late.png"


def test_a_folder_that_can_be_read_again_no_longer_counts_as_a_failure(path: Path):
    manifest = Manifest(path, "s")
    for folder in (".", "box", "box 2"):
        manifest.add(manifest.failed(Scan(path=f"/scans/{folder}", name=folder, error="the folder cannot be read")))
    manifest.plan(replace(SCAN, name="box/c/a.tif"), force=False, retry_failed=False, has_results=bool)
    manifest.add(replace(DONE, path="box/c/a.tif"))
    manifest.finish()
    assert [r.path for r in manifest.records()] == ["box/c/a.tif", "box 2"]
    manifest.close()


def test_pages_that_are_no_more_are_named(path: Path):
    write(path, FIRST, SECOND)
    shorter = replace(DONE, sha256="bb", size=8, results="a.tif")
    write(path, shorter)
    manifest = Manifest(path, "s")
    assert manifest.stale() == ["a.tif.p0001", "a.tif.p0002"]
    manifest.finish()
    assert manifest.stale() == []
    manifest.close()


def test_a_page_that_is_done_again_under_its_name_is_not_stale(path: Path):
    write(path, FIRST, SECOND)
    manifest = Manifest(path, "new")
    manifest.add(replace(SECOND, settings="new"))
    manifest.add(replace(FIRST, settings="new"))
    assert manifest.stale() == []
    manifest.close()


def test_a_full_disk_leaves_the_manifest_as_it_was(path: Path):
    write(path, FIRST)
    whole = path.read_bytes()
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    manifest = Manifest(path, "s")
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, hard))
    try:
        with pytest.raises(OutputError, match="manifest"):
            manifest.add(SECOND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == whole
    manifest.add(SECOND)
    manifest.close()
    assert planned(path) is None


# The lock

HOLD = """
import sys, time; from pathlib import Path; from dbcpu.batch.lock import locked
with locked(Path(sys.argv[1])): print("held", flush=True); time.sleep(60)
"""


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    (tmp_path / ".dbcpu").mkdir()
    return tmp_path / ".dbcpu" / "lock"


def test_a_second_run_is_refused_and_told_who_holds_the_lock(lock_file: Path):
    command = [sys.executable, "-c", HOLD, str(lock_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {holder.pid} on {socket.gethostname()}, last heartbeat 0 s"):
            locked(lock_file).__enter__()
        holder.kill()
    with locked(lock_file):  # the killed one's
        assert json.loads(lock_file.read_text())["process"] == os.getpid()
    assert not lock_file.exists()


def test_a_run_on_another_machine_counts_as_alive_until_it_falls_silent(lock_file: Path):
    holder = {"host": "elsewhere", "process": 7, "heartbeat": time.time() - lock.SILENCE / 2}
    lock_file.write_text(json.dumps(holder))
    with pytest.raises(OutputError, match="process 7 on elsewhere"):
        locked(lock_file).__enter__()
    assert json.loads(lock_file.read_text()) == holder
    lock_file.write_text(json.dumps({**holder, "heartbeat": time.time() - 2 * lock.SILENCE}))
    with locked(lock_file):
        assert json.loads(lock_file.read_text())["process"] == os.getpid()


def test_a_lock_beats(lock_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with locked(lock_file):
        first = lock_file.read_text()
        deadline = time.monotonic() + 20
        while lock_file.read_text() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert json.loads(lock_file.read_text())["heartbeat"] > json.loads(first)["heartbeat"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "elsewhere"}'])
def test_a_lock_file_without_a_living_holder_is_taken_over(lock_file: Path, content: str):
    lock_file.write_text(content)
    with locked(lock_file):
        assert json.loads(lock_file.read_text())["process"] == os.getpid()
