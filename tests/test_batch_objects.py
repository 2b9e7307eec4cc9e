"""Scans and results in an object store, and scans on a web server."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import files_in, run_cli, without_times
from object_store import BUCKET, OWN_FIELDS, objects, served_bucket
from PIL import Image

from dbcpu.batch import object_lock, parted
from dbcpu.batch.addresses import as_path
from dbcpu.batch.object_store import ObjectStore
from dbcpu.batch.records import PageRecord
from dbcpu.errors import OutputError

QUICK = ("--short-side", 64, "--workers", 0, "--threads", 1, "-q")
DONE = PageRecord(path="a.tif", page=1, size=1, mtime_ns=5, status="done", results="a.tif", settings="s")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    pytest.importorskip("s3fs", reason="needs s3fs")
    pytest.importorskip("moto.server", reason="needs moto[server]")
    with served_bucket() as client:
        yield client


@pytest.fixture(autouse=True)
def s3(server: Any) -> Iterator[Any]:
    """A client of the server, with an empty bucket."""
    yield server
    for page in server.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", ()):
            server.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.fixture
def scans(tmp_path: Path, synthetic: Any) -> Path:
    """Pages of several kinds in a folder, one of them broken."""
    folder = tmp_path / "scans"
    (folder / "box 1").mkdir(parents=True)
    page = synthetic.image(4)
    cv2.imwrite(str(folder / "a.png"), page)
    cv2.imwrite(str(folder / "box 1" / "ä [1].png"), page[::-1])
    cv2.imwritemulti(str(folder / "many.tif"), [page, page[:, ::-1]])
    pages = [Image.fromarray(np.full((60, 40 + number, 3), 255, np.uint8)) for number in range(3)]
    pages[0].save(folder / "book.pdf", save_all=True, append_images=pages[1:], resolution=200)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / "notes.txt").write_text("left out")
    return folder


def upload(s3: Any, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


def pages_in(log: str) -> list[tuple[str, int]]:
    """The pages that a log of JSON lines tells of."""
    events = [json.loads(line) for line in log.splitlines()]
    return [(event["path"], event["page"]) for event in events if event["event"] == "page"]


def test_a_bucket_gives_what_a_folder_gives(s3: Any, scans: Path):
    upload(s3, scans, "scans")
    options = (*QUICK, "--format", "json,csv,hocr,coco", "--overlay", "--crops")
    assert run_cli("batch", scans, scans.parent / "out", *options)[0] == 7
    code, _, err = run_cli("batch", f"s3://{BUCKET}/scans", f"s3://{BUCKET}/out", *options)
    assert code == 7, err
    folder = files_in(scans.parent / "out")
    assert without_times(objects(s3, "out"), also=OWN_FIELDS) == without_times(folder, also=OWN_FIELDS)
    assert run_cli("batch", f"s3://{BUCKET}/scans", scans.parent / "mixed", *options)[0] == 7
    assert (scans.parent / "mixed/box 1/ä [1].png.json").read_bytes() == folder["box 1/ä [1].png.json"]


def test_what_is_in_a_bucket_is_not_done_again(s3: Any, scans: Path):
    upload(s3, scans, "scans")
    again = ("batch", f"s3://{BUCKET}/scans", f"s3://{BUCKET}/out", *QUICK[:-1], "--log-json")
    run_cli(*again, "--overlay")
    assert "a.png.overlay.jpg" in objects(s3, "out")
    s3.delete_object(Bucket=BUCKET, Key="out/many.tif.p0002.json")
    s3.put_object(Bucket=BUCKET, Key="scans/a.png", Body=(scans / "a.png").read_bytes())
    s3.put_object(Bucket=BUCKET, Key="scans/broken.jpg", Body=(scans / "a.png").read_bytes())
    code, _, err = run_cli(*again, "--overlay")
    assert code == 0
    assert pages_in(err) == [("broken.jpg", 1), ("many.tif", 2)]
    after = objects(s3, "out")
    assert pages_in(run_cli(*again, "--overlay")[2]) == []
    assert objects(s3, "out") == after
    assert len(pages_in(run_cli(*again)[2])) == 8  # other settings: what lies there belongs together
    assert "a.png.overlay.jpg" not in objects(s3, "out")


def test_lists_patterns_and_several_buckets_are_told_apart(s3: Any, scans: Path):
    upload(s3, scans, "scans")
    listed = scans.parent / "list"
    listed.write_text(f"s3://{BUCKET}/scans/a.png\n{scans / 'a.png'}\ns3://{BUCKET}/scans/gone.png\n")
    code, _, err = run_cli("batch", "--from-list", listed, scans.parent / "out", *QUICK)
    assert code == 7
    assert f"s3/{BUCKET}/scans/gone.png, page 1: no such file" in err
    assert (scans.parent / f"out/s3/{BUCKET}/scans/a.png.json").exists()
    run_cli("batch", f"s3://{BUCKET}/scans/*.png", f"s3://{BUCKET}/scans/box 1", scans.parent / "two", *QUICK)
    assert sorted(p.name for p in (scans.parent / "two").rglob("*.png.json")) == ["a.png.json", "ä [1].png.json"]
    run_cli("batch", f"s3://{BUCKET}/scans/a.png", scans, scans.parent / "three", *QUICK, "--format", "page-xml")
    assert (scans.parent / f"three/s3/{BUCKET}/scans/a.png.json").exists()
    page_xml = (scans.parent / f"three/s3/{BUCKET}/scans/a.png.page.xml").read_text()
    assert f'imageFilename="s3://{BUCKET}/scans/a.png"' in page_xml


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((f"s3://{BUCKET}/nothing", "out"), "no such file"),
        ((f"s3://{BUCKET}/nothing/*.png", "out"), "no such file"),
        (("s3://no-such-bucket/scans", "out"), "no-such-bucket"),
        (("nowhere://host/scans", "out"), "nowhere"),
        (("ftp://user:secret@host/scans", "out"), "environment"),
        (("page.png", "http://host/out"), "over http"),
        ((f"s3://{BUCKET}/scans", f"s3://{BUCKET}/scans/"), "between the scans"),
    ],
)
def test_addresses_that_cannot_work_are_refused_in_one_line(
    s3: Any, page: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
):
    s3.put_object(Bucket=BUCKET, Key="scans/a.png", Body=page.read_bytes())
    monkeypatch.chdir(page.parent)
    code, _, err = run_cli("batch", *arguments, *QUICK)
    assert code == 2
    assert words in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1


def test_results_in_a_bucket_that_is_not_there_are_an_output_error(page: Path):
    code, _, err = run_cli("batch", page, "s3://no-such-bucket/out", *QUICK)
    assert (code, len(err.splitlines())) == (6, 1)


def test_keys_that_would_lead_out_of_the_results_do_not():
    assert as_path("s3://b/../../etc/passwd") == "/s3/b/%2E%2E/%2E%2E/etc/passwd"
    assert as_path("s3://b//a/./b.png") == "/s3/b/%/a/%2E/b.png"


def test_pages_are_read_from_a_web_server(scans: Path):
    handler = functools.partial(_Quiet, directory=str(scans))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{web.server_address[1]}"
        out = scans.parent / "out"
        code, _, err = run_cli("batch", f"{address}/a.png", f"{address}/many.tif", out, *QUICK)
        assert code == 0, err
        assert len(list(out.glob("many.tif.p*.json"))) == 2
        first = (out / "manifest.jsonl").read_bytes()
        assert json.loads(first.splitlines()[0])["mtime_ns"] == int((scans / "a.png").stat().st_mtime) * 10**9
        assert run_cli("batch", f"{address}/gone.png", out, *QUICK)[0] == 2
        run_cli("batch", f"{address}/a.png", f"{address}/many.tif", out, *QUICK)
        assert (out / "manifest.jsonl").read_bytes() == first
        web.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


# The manifest in parts, and the lock


def test_a_run_that_is_killed_leaves_parts_that_the_next_one_reads(s3: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parted, "_SECONDS_BETWEEN_PARTS", 0.0)
    store = ObjectStore(f"s3://{BUCKET}/out")
    killed = store.open_manifest("manifest.jsonl", "s")
    for page in (1, 2, 3):
        killed.add(PageRecord(**{**vars(DONE), "page": page, "is_last": page == 3}))
        killed.keep()
    assert len(objects(s3, "out/manifest.jsonl.parts")) == 3
    again = ObjectStore(f"s3://{BUCKET}/out").open_manifest("manifest.jsonl", "s")
    assert [record.page for record in again.records()] == [1, 2, 3]
    again.add(PageRecord(**{**vars(DONE), "path": "b.tif"}))
    again.keep()
    assert "00000004.jsonl" in objects(s3, "out/manifest.jsonl.parts")
    again.finish()
    again.close()
    assert list(objects(s3, "out")) == ["manifest.jsonl"]
    assert len(objects(s3, "out")["manifest.jsonl"].splitlines()) == 4


def test_a_second_run_on_the_same_objects_is_refused_until_the_first_is_gone(
    s3: Any, warnings_logged: pytest.LogCaptureFixture
):
    store = ObjectStore(f"s3://{BUCKET}/out")
    refused = pytest.raises(OutputError, match="another run works on these results: process")
    with store.locked(".dbcpu/lock"), refused:
        ObjectStore(store.address).locked(".dbcpu/lock").__enter__()
    with store.locked(".dbcpu/lock"), refused:
        store.check_unlocked(".dbcpu/lock")
    store.check_unlocked(".dbcpu/lock")
    assert objects(s3, "out") == {}
    silent = {"host": "elsewhere", "process": 7, "token": "t", "heartbeat": time.time() - 1000}
    store.write(".dbcpu/lock", json.dumps(silent).encode())
    with store.locked(".dbcpu/lock"):
        assert "taking over" in warnings_logged.text
    store.write(".dbcpu/lock", json.dumps({**silent, "heartbeat": time.time()}).encode())
    with pytest.raises(OutputError, match="process 7 on elsewhere"):
        store.locked(".dbcpu/lock").__enter__()


def test_a_run_whose_lock_was_taken_over_ends_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(object_lock, "HEARTBEAT", 0.01)
    told = threading.Event()
    monkeypatch.setattr(object_lock.os, "kill", lambda *_: told.set())
    store = ObjectStore(f"s3://{BUCKET}/out")
    with store.locked(".dbcpu/lock"):
        first = store.read(".dbcpu/lock")
        while store.read(".dbcpu/lock") == first:
            time.sleep(0.01)
        other = {"host": "elsewhere", "process": 7, "token": "t", "heartbeat": time.time()}
        while not told.wait(0.05):
            store.write(".dbcpu/lock", json.dumps(other).encode())
    assert json.loads(store.read(".dbcpu/lock")) == other


def test_a_name_with_a_star_removes_only_itself(s3: Any):
    store = ObjectStore(f"s3://{BUCKET}/out")
    for name in ("a*.json", "ab.json"):
        store.write(name, b"{}")
    store.remove(["a*.json", "gone.json"])
    assert list(objects(s3, "out")) == ["ab.json"]
