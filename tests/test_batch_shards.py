"""Runs over parts of the scans, and what is left when they are put together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import pytest
from helpers import results_in, run_cli

from dbcpu.batch.shards import Shard

QUICK = ("--short-side", 64, "--workers", 0, "--threads", 1, "-q")


@pytest.fixture
def scans(tmp_path: Path, synthetic: Any) -> Path:
    """A dozen scans in folders, one of them broken, and one that is left out."""
    folder = tmp_path / "scans"
    page = synthetic.image(4)
    for number in range(12):
        path = folder / f"box {number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), page)
    cv2.imwrite(str(folder / "first.png"), page)
    (folder / "broken.jpg").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("left out")
    return folder


def run(scans: Path, out: str, *arguments: object) -> tuple[int, str]:
    code, _, err = run_cli("batch", scans, scans.parent / out, *QUICK, *arguments)
    return code, err


def test_every_scan_is_in_one_shard_and_always_the_same():
    names = [f"box {number}/{number:05d}.tif" for number in range(3000)]
    shards = [Shard(7, index) for index in range(1, 8)]
    assigned = [[shard.index for shard in shards if name in shard] for name in names]
    assert all(len(found) == 1 for found in assigned)
    sizes = [sum(found == [shard.index] for found in assigned) for shard in shards]
    assert max(sizes) < 1.2 * min(sizes)
    # Pinned: all machines have to agree, whatever their version.
    assert [found[0] for found in assigned[:5]] == [4, 4, 2, 1, 4]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_what_names_no_shard_is_refused(text: str):
    code, _, err = run_cli("batch", "scans", "out", "--shard", text)
    assert code == 2
    assert "no shard i/n" in err


def test_shards_put_together_are_what_one_run_leaves(scans: Path):
    options = ("--format", "json,csv", "--overlay")
    assert run(scans, "whole", *options)[0] == 7
    codes = [run(scans, "out", *options, "--shard", f"{index}/3")[0] for index in (2, 3, 1)]
    assert sorted(codes) == [0, 0, 7]
    out = scans.parent / "out"
    assert not (out / "manifest.jsonl").exists()
    assert "put together first" in run(scans, "out", *options)[1]
    assert run_cli("batch", "merge", out, "-q")[0] == 7
    assert results_in(out) == results_in(scans.parent / "whole")
    # Later runs go on from the whole, whatever the number of shards.
    (scans / "new.png").write_bytes((scans / "first.png").read_bytes())
    for index in (1, 2):
        _, err = run(scans, "out", *options, "--shard", f"{index}/2", "--log-json")
        events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        pages = [event["path"] for event in events if event["event"] == "page"]
        assert pages in ([], ["new.png"])
    run_cli("batch", "merge", out, "-q")
    run(scans, "whole", *options)
    assert results_in(out) == results_in(scans.parent / "whole")


def test_unfinished_and_unlike_shards_are_not_put_together_in_silence(scans: Path):
    run(scans, "out", "--shard", "1/3")
    out = scans.parent / "out"
    code, _, err = run_cli("batch", "merge", out)
    assert code == 2
    assert "of 3 shards, these have not come to their end: 2, 3" in err
    assert run_cli("batch", "merge", out, "--partial", "-q")[0] in (0, 7)
    assert (out / "manifest.jsonl").read_text() == (out / ".dbcpu/shards/0001-of-0003/manifest.jsonl").read_text()
    assert "shards of 3, not 4" in run(scans, "out", "--shard", "1/4")[1]
    run(scans, "out", "--shard", "2/3", "--unclip-ratio", 2)
    run(scans, "out", "--shard", "3/3")
    assert "not made with the same model and settings" in run_cli("batch", "merge", out)[2]


@pytest.mark.parametrize("limit", [("--fail-fast",), ("--max-failures", 2)])
def test_a_shard_that_failures_stopped_has_not_come_to_its_end(scans: Path, limit: tuple[object, ...]):
    (scans / "broken too.jpg").write_bytes(b"nothing")
    run(scans, "out", "--shard", "1/1", *limit)
    out = scans.parent / "out"
    assert "have not come to their end: 1" in run_cli("batch", "merge", out)[2]
    run(scans, "out", "--shard", "1/1")
    assert run_cli("batch", "merge", out, "-q")[0] == 7
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 15


def test_a_shard_that_is_being_worked_on_is_not_merged_or_begun_again(scans: Path):
    from dbcpu.batch.store import FolderStore

    run(scans, "out", "--shard", "1/1")
    out = scans.parent / "out"
    with FolderStore(out).locked(".dbcpu/shards/0001-of-0001/lock"):
        assert run(scans, "out", "--shard", "1/1")[0] == 6
        code, _, err = run_cli("batch", "merge", out)
        assert code == 6
        assert "another run works on these results" in err


def test_shards_and_the_whole_are_not_worked_on_at_once(scans: Path):
    from dbcpu.batch.store import FolderStore

    (scans.parent / "out/.dbcpu/shards/0002-of-0002").mkdir(parents=True)
    store = FolderStore(scans.parent / "out")
    with store.locked(".dbcpu/shards/0002-of-0002/lock"):
        code, err = run(scans, "out")
        assert code == 6
        assert f"another run works on these results: process {os.getpid()}" in err
        assert run_cli("batch", "merge", store.folder)[0] == 6
        assert run(scans, "out", "--shard", "1/2")[0] in (0, 7)
    with store.locked(".dbcpu/lock"):
        code, err = run(scans, "out", "--shard", "1/2")
        assert code == 6
        assert f"another run works on these results: process {os.getpid()}" in err
    assert run_cli("batch", "merge", "--partial", store.folder)[0] in (0, 7)


def test_without_shards_there_is_nothing_to_merge(tmp_path: Path):
    code, _, err = run_cli("batch", "merge", tmp_path)
    assert code == 2
    assert "no shards" in err
    assert "./merge" in err
    assert "manifest" in run_cli("batch", "merge", "--help")[1]
