"""Runs of `dbcpu batch`: what is in the folder of results afterwards, whatever happened in between."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pypdfium2
import pytest
from helpers import results_in, run_cli
from PIL import Image

from dbcpu.batch.local import SerialEngine
from dbcpu.batch.records import PageRecord, Scan, Task
from dbcpu.batch.store import FolderStore
from dbcpu.batch.work import PageWork
from dbcpu.geometry import Size
from dbcpu.result import DetectionResult
from dbcpu.writers.formats import PAGE_FORMATS, RUN_FORMATS
from dbcpu.writers.page_files import PageParts, PictureFormat, page_files

ROOT = Path(__file__).parents[1]
# One process, small pages: what the network finds on them does not matter here.
QUICK = ("--short-side", 64, "--workers", 0, "--threads", 1, "-q")


@pytest.fixture
def scans(tmp_path: Path, synthetic: Any) -> Path:
    """A folder of pages of several kinds, one of them broken."""
    folder = tmp_path / "scans"
    (folder / "box 1").mkdir(parents=True)
    page: np.ndarray[Any, Any] = synthetic.image(4)
    cv2.imwrite(str(folder / "a.png"), page)
    cv2.imwrite(str(folder / "box 1" / "a.png"), page[::-1])
    cv2.imwritemulti(str(folder / "many.tif"), [page, page[:, ::-1], page[::-1]])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / "notes.txt").write_text("left out")
    return folder


def run(scans: Path, *arguments: object) -> tuple[int, str]:
    """Run into the folder beside the scans: exit code, stderr."""
    code, out, err = run_cli("batch", scans, scans.parent / "out", *QUICK, *arguments)
    assert out == ""
    return code, err


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_results_mirror_the_scans_and_failures_are_recorded(scans: Path):
    code, err = run(scans)
    assert code == 7
    out = scans.parent / "out"
    results = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.json"))
    assert results == [
        *("a.png.json", "box 1/a.png.json", "many.tif.p0001.json", "many.tif.p0002.json", "many.tif.p0003.json"),
        "summary.json",
    ]
    records = manifest(out)
    assert [(r["path"], r["page"], r["status"], r["is_last"]) for r in records] == [
        ("a.png", 1, "done", True),
        ("broken.jpg", 1, "failed", True),
        ("many.tif", 1, "done", False),
        ("many.tif", 2, "done", False),
        ("many.tif", 3, "done", True),
        ("box 1/a.png", 1, "done", True),
    ]
    assert records[0]["size"] == (scans / "a.png").stat().st_size
    assert len(records[0]["sha256"]) == 64
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["pages"], summary["done"], summary["failed"]) == (6, 5, 1)
    assert summary["failures"][0]["path"] == "broken.jpg"
    assert summary["left_out"] == {".txt": 1}
    assert "failed: broken.jpg, page 1: " in err
    assert "1 of 6 pages failed" in err
    assert not list(out.rglob("*.partial"))
    assert not (out / ".dbcpu" / "lock").exists()


def test_a_page_gets_what_detect_gives(scans: Path):
    run(scans)
    detected = json.loads(run_cli("detect", scans / "a.png", "--short-side", 64, "-q")[1])
    assert json.loads((scans.parent / "out/a.png.json").read_text()) == {**detected, "image": "a.png"}


def test_running_again_does_nothing_and_leaves_the_same_files(scans: Path):
    run(scans)
    out = scans.parent / "out"
    before = results_in(out), (out / "a.png.json").stat().st_mtime_ns
    code, err = run_cli("batch", scans, out, *QUICK[:-1])[::2]
    assert code == 7
    assert "0 pages done" in err
    assert "files left out by their names: 1 .txt" in err
    assert "failed earlier: broken.jpg, page 1" in err
    assert (results_in(out), (out / "a.png.json").stat().st_mtime_ns) == before
    *lines, error = run_cli("batch", scans, out, *QUICK[:-1], "--log-json")[2].splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["left_out", "end", "failed_earlier"]
    assert "1 of 6 pages failed" in error


def test_only_what_has_changed_is_done_again(scans: Path):
    run(scans)
    out = scans.parent / "out"
    os.utime(scans / "a.png", (1, 1))
    cv2.imwrite(str(scans / "box 1/a.png"), np.full((40, 50, 3), 255, np.uint8))
    (out / "many.tif.p0002.json").unlink()
    (scans / "new.png").write_bytes((scans / "a.png").read_bytes())
    (scans / "broken.jpg").write_bytes((scans / "a.png").read_bytes())
    code, _, err = run_cli("batch", scans, out, *QUICK[:-1], "--log-json")
    assert code == 0
    events = [json.loads(line) for line in err.splitlines()]
    done = [(e["path"], e["page"]) for e in events if e["event"] == "page"]
    assert done == [("broken.jpg", 1), ("many.tif", 2), ("new.png", 1), ("box 1/a.png", 1)]
    assert [record["mtime_ns"] for record in manifest(out) if record["path"] == "a.png"] == [10**9]
    assert events[-2]["files"] == {".txt": 1}
    assert events[-1]["event"] == "end"
    assert events[-1]["files_unchanged"] == 1
    assert json.loads((out / "box 1/a.png.json").read_text())["width"] == 50


def test_other_settings_and_force_do_everything_again(scans: Path):
    (scans / "broken.jpg").unlink()
    out = scans.parent / "out"
    assert run(scans, "--format", "json,icdar", "--overlay", "--crops", "--unclip-ratio", 1)[0] == 0
    assert (out / "res_a.png.txt").exists()
    assert (out / "a.png.overlay.jpg").exists()
    assert run(scans, "--unclip-ratio", 2)[0] == 0
    assert json.loads((out / "a.png.json").read_text())["settings"]["unclip_ratio"] == 2
    assert not (out / "res_a.png.txt").exists()  # of other settings: what lies there belongs together
    assert not (out / "a.png.overlay.jpg").exists()
    assert not (out / "a.png").exists()
    written = (out / "a.png.json").stat().st_mtime_ns
    run(scans, "--unclip-ratio", 2, "--force")
    assert (out / "a.png.json").stat().st_mtime_ns > written


def test_results_of_pages_that_are_no_more_go(scans: Path):
    run(scans)
    cv2.imwrite(str(scans / "many.tif"), np.full((40, 50, 3), 255, np.uint8))
    (scans / "a.png").write_bytes(b"\x89PNG broken now")
    run(scans)
    out = scans.parent / "out"
    assert sorted(path.name for path in out.glob("*.json")) == ["many.tif.json", "summary.json"]
    assert sorted(path.name for path in (out / "index_files").iterdir() if path.is_file()) == ["many.tif.jpg"]
    assert [(r["path"], r["status"]) for r in manifest(out)][:3] == [
        ("a.png", "failed"),
        ("broken.jpg", "failed"),
        ("many.tif", "done"),
    ]


def test_failures_are_tried_again_on_request_and_can_stop_the_run(scans: Path):
    for name in ("b1.jpg", "b2.jpg", "b3.jpg"):
        (scans / name).write_bytes(b"nothing")
    assert "2 of 3 pages failed" in run(scans, "--max-failures", 2)[1]
    assert "3 of 4 pages failed" in run(scans, "--fail-fast")[1]
    assert "4 of 9 pages failed" in run(scans)[1]
    (scans / "b1.jpg").write_bytes(b"no-thing")
    _, err = run(scans, "--retry-failed")
    assert sum("failed: b" in line for line in err.splitlines()) == 4


def test_the_pages_of_a_pdf_are_files_of_their_own(scans: Path):
    pages = [Image.fromarray(np.full((60, 40 + number, 3), 255, np.uint8)) for number in range(20)]
    pages[0].save(scans / "book.pdf", save_all=True, append_images=pages[1:], resolution=200)
    (scans / "broken.jpg").unlink()
    assert run(scans)[0] == 0
    records = [record for record in manifest(scans.parent / "out") if record["path"] == "book.pdf"]
    assert [(record["page"], record["is_last"]) for record in records] == [(n, n == 20) for n in range(1, 21)]
    assert json.loads((scans.parent / "out/book.pdf.p0003.json").read_text())["width"] == 42


def test_a_page_that_cannot_be_drawn_does_not_cost_the_rest_of_a_pdf(scans: Path):
    document = pypdfium2.PdfDocument.new()
    for side in (100, 10_000, 100):
        document.new_page(side, side)
    document.save(scans / "book.pdf")
    run(scans, "--max-pixels", 1_000_000)
    records = [r for r in manifest(scans.parent / "out") if r["path"] == "book.pdf"]
    assert [(r["page"], r["status"], r["is_last"]) for r in records] == [
        (1, "done", False),
        (2, "failed", False),
        (3, "done", True),
    ]


def test_a_first_page_that_cannot_be_read_does_not_cost_the_rest_of_a_file(scans: Path, synthetic: Any):
    document = pypdfium2.PdfDocument.new()
    for side in (10_000, 10_000, 100, 100):
        document.new_page(side, side)
    document.save(scans / "book.pdf")
    large, small = np.full((1200, 1200, 3), 255, np.uint8), synthetic.image(4)
    cv2.imwritemulti(str(scans / "many.tif"), [large, small, large, small, large])
    cv2.imwrite(str(scans / "large.png"), large)
    run(scans, "--max-pixels", 1_000_000)
    told: dict[str, list[tuple[str, bool]]] = {}
    for record in manifest(scans.parent / "out"):
        told.setdefault(record["path"], []).append((record["status"], record["is_last"]))
    failed, done = ("failed", False), ("done", False)
    assert told["book.pdf"] == [failed, failed, done, ("done", True)]
    assert told["many.tif"] == [failed, done, failed, done, ("failed", True)]
    assert told["large.png"] == told["broken.jpg"] == [("failed", True)]


def test_a_page_that_no_process_survives_is_told_by_the_one_that_goes_on_after_it(scans: Path):
    failure = PageRecord(path="many.tif", page=2, size=1, mtime_ns=1, status="failed", settings="", error="hung")
    path = scans / "many.tif"
    store = FolderStore(scans.parent / "out")
    work = PageWork(store=store, detector={"short_side": 64}, max_bytes=1 << 30)
    store.make()
    store.clear()
    engine = SerialEngine(work)
    for failed_page, expected in ((2, [(2, "hung", False), (3, None, True)]), (3, [(3, "hung", True)])):
        task = Task(
            scan=Scan(path=str(path), name=path.name),
            first_page=failed_page,
            failure=replace(failure, page=failed_page, seconds=300.0),
        )
        records = [record for record in engine.run(iter([task]), is_stopped=bool) if isinstance(record, PageRecord)]
        assert [(record.page, record.error, record.is_last) for record in records] == expected
        assert records[0].seconds >= 300
        assert records[0].sha256 is not None


def test_a_pdf_that_changes_and_keeps_its_length_is_done_again_to_its_end(scans: Path):
    document = pypdfium2.PdfDocument.new()
    for _ in range(3):
        document.new_page(100, 100)
    document.save(scans / "book.pdf")
    run(scans)
    (scans / "book.pdf").write_bytes((scans / "book.pdf").read_bytes().replace(b" 100 100]", b" 200 100]"))
    os.utime(scans / "book.pdf", (1, 1))
    run(scans)
    pages = [json.loads((scans.parent / f"out/book.pdf.p000{page}.json").read_text()) for page in (1, 2, 3)]
    assert pages[0]["width"] > pages[0]["height"]
    assert [page["width"] for page in pages] == [pages[0]["width"]] * 3
    assert [r["mtime_ns"] for r in manifest(scans.parent / "out") if r["path"] == "book.pdf"] == [10**9] * 3


def test_every_format_is_written_and_those_of_the_whole_run_once(scans: Path):
    run(scans, "--format", ",".join([*PAGE_FORMATS, *RUN_FORMATS]), "--crops", "--save-map")
    out = scans.parent / "out"
    for page_format in PAGE_FORMATS.values():
        expected = page_format.name not in RUN_FORMATS
        assert (out / page_format.file_name(Path("many.tif.p0002"))).exists() == expected, page_format.name
    coco = json.loads((out / "coco.json").read_text())
    assert [(image["file_name"], image["page"]) for image in coco["images"]][1:4] == [
        ("many.tif", 1),
        ("many.tif", 2),
        ("many.tif", 3),
    ]
    assert len((out / "results.jsonl").read_text().splitlines()) == 5
    assert (out / "results.csv").read_text().startswith("image,page,instance")
    assert (out / "box 1/a.png.map.png").exists()
    page_xml = (out / "box 1/a.png.page.xml").read_text()
    assert f'imageFilename="{os.path.relpath(scans / "box 1/a.png", out / "box 1")}"' in page_xml


@pytest.mark.parametrize(("form", "expected"), [("jpeg", (65_500, 3)), ("png", (70_000, 4))])
def test_an_overlay_that_its_format_has_no_room_for_becomes_smaller(form: PictureFormat, expected: tuple[int, int]):
    pixels = np.full((4, 70_000, 3), 255, np.uint8)
    result = DetectionResult(
        image="a", page=1, image_size=Size(4, 70_000), instances=(), truncated=False, model="", settings={}
    )
    parts = PageParts(overlay=form)
    ((_, _, content),) = page_files(parts, Path("a.png"), pixels, result, np.zeros((4, 4), np.float32), str)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == expected


def test_a_page_that_fails_while_it_is_written_leaves_nothing(scans: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ValueError("no thumbnail")

    monkeypatch.setattr("dbcpu.writers.contact_sheet.draw_thumbnail", broken)
    run(scans, "--overlay", "--crops")
    out = scans.parent / "out"
    assert {record["status"] for record in manifest(out)} == {"failed"}
    assert {path.name for path in out.iterdir()} == {".dbcpu", "index.html", "manifest.jsonl", "summary.json"}


def test_formats_of_the_whole_run_do_without_pages_whose_scan_and_result_were_removed(scans: Path):
    run(scans, "--format", "csv,jsonl")
    out = scans.parent / "out"
    (scans / "a.png").unlink()
    (out / "a.png.json").unlink()
    code, _, err = run_cli("batch", scans, out, *QUICK[:-1], "--format", "csv,jsonl")
    assert code == 7
    assert "results.jsonl, results.csv: without pages whose results are gone: 1, such as a.png.json" in err
    assert [json.loads(line)["image"] for line in (out / "results.jsonl").read_text().splitlines()] == [
        *("many.tif",) * 3,
        "box 1/a.png",
    ]


def test_the_contact_sheet_shows_every_page(scans: Path):
    run(scans, "--overlay")
    sheet = (scans.parent / "out/index.html").read_text()
    assert sheet.count("<li") == 6
    for address in ("./box%201/a.png.overlay.jpg", "./index_files/many.tif.p0002.jpg"):
        assert address in sheet
        assert (scans.parent / "out" / address.replace("%20", " ")).exists()


def test_names_that_are_no_text_are_worked_on(scans: Path):
    odd = os.fsencode(scans) + b"/\xff\xfe.png"
    os.link(os.fsencode(scans / "a.png"), odd)
    (scans / "broken.jpg").unlink()
    assert run(scans, "--format", "page-xml,coco", "--overlay")[0] == 0
    assert Path(os.fsdecode(os.fsencode(scans.parent) + b"/out/\xff\xfe.png.json")).exists()


def test_a_scan_whose_results_would_be_in_the_place_of_others_costs_only_itself(scans: Path):
    (scans / "broken.jpg").unlink()
    for folder in ("manifest.jsonl", "index.html", "results.csv", "z", "a.png.json"):
        (scans / folder).mkdir()
        (scans / folder / "z.png").write_bytes((scans / "a.png").read_bytes())
    (scans / "summary").write_bytes((scans / "a.png").read_bytes())
    code, err = run(scans, "--include", "*.png", "--include", "summary", "--format", "csv")
    assert code == 7, err
    errors = {record["path"]: record["error"] for record in manifest(scans.parent / "out")}
    assert {path for path, error in errors.items() if error is None} == {"a.png", "z/z.png", "box 1/a.png"}
    assert "index.html is for the results of the whole run (give it another name)" in errors["index.html/z.png"]
    assert errors["a.png.json/z.png"] == "its results could not be written: File exists"
    assert json.loads((scans.parent / "out/summary.json").read_text())["failed"] == 5


def test_the_same_file_given_twice_is_done_once(scans: Path):
    listed = scans.parent / "list"
    listed.write_text(f"{scans / 'a.png'}\n" * 3 + f"{scans / 'gone.png'}\n")
    code, _, err = run_cli("batch", "--from-list", listed, scans.parent / "out", *QUICK)
    assert code == 7
    assert "gone.png, page 1: no such file" in err
    assert len(manifest(scans.parent / "out")) == 2


def test_another_file_of_the_same_name_is_not_taken_for_one_given_twice(scans: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(scans.parent)
    listed = scans.parent / "list"
    listed.write_text(f"a.png\n{scans}/a.png\n")
    Path("a.png").symlink_to("scans/a.png")
    arguments = ("batch", "--from-list", listed, "scans/a.png", "out", *QUICK)
    assert run_cli(*arguments)[0] == 0
    Path("a.png").unlink()
    Path("a.png").write_bytes((scans / "many.tif").read_bytes())
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert f"a.png: would get the same results as {scans}/a.png: a.png.json (name another folder" in err
    assert [r["path"] for r in manifest(Path("out"))] == ["a.png", "scans/a.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("out",), 2, "nothing to read"),
        (("nowhere", "out"), 2, "no such file"),
        (("scans", "scans"), 2, "between the scans"),
        (("scans", "scans/a.png/out"), 6, "scans/a.png/out"),
        (("scans", "out", "--rotate-crops"), 2, "--crops"),
        (("scans/a.png", ""), 2, "has no name"),
        (("merge", ""), 2, "has no name"),
        (("scans", "out", "--format", "pdf"), 2, "no format 'pdf'"),
        (("scans", "out", "--weights", "scans/a.png"), 4, "scans/a.png"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    scans: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
):
    monkeypatch.chdir(scans.parent)
    done, out, err = run_cli("batch", *arguments)
    assert (done, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("seconds", ["nan", "NaN", "0", "-1"])
def test_a_limit_on_time_is_a_number_of_seconds(scans: Path, seconds: str):
    code, out, err = run_cli("batch", scans, scans.parent / "out", f"--page-seconds={seconds}")
    assert (code, out) == (2, "")
    assert "--page-seconds" in err


# Processes: workers, signals, kills


def start(scans: Path, *arguments: object, **settings: Any) -> subprocess.Popen[str]:
    out = scans.parent / "out"
    command = [sys.executable, "-m", "dbcpu", "batch", scans, out, "--short-side", 64, *arguments]
    return subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, cwd=ROOT, **settings)


def fill(scans: Path, copies: int) -> None:
    """Add links to the good pages, some in folders."""
    for number in range(copies):
        folder = scans / f"box {number % 3}"
        folder.mkdir(exist_ok=True)
        os.link(
            scans / ("a.png" if number % 4 else "many.tif"), folder / f"{number:03d}.{'png' if number % 4 else 'tif'}"
        )


def test_workers_give_what_one_process_gives(scans: Path):
    pages = [Image.fromarray(np.full((60, 40 + number, 3), 255, np.uint8)) for number in range(40)]
    pages[0].save(scans / "book.pdf", save_all=True, append_images=pages[1:], resolution=200)
    run(scans, "--overlay")
    alone = results_in(scans.parent / "out")
    (scans.parent / "out").rename(scans.parent / "alone")
    process = start(scans, "--overlay", "--workers", 2)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 7, err
    assert results_in(scans.parent / "out") == alone


def test_an_interrupt_lets_pages_finish_and_the_next_run_goes_on(scans: Path):
    fill(scans, 60)
    (scans / "broken.jpg").unlink()
    process = start(scans, "--workers", 2)
    lines = scans.parent / "out" / "manifest.jsonl"
    wait_for(lambda: lines.exists() and lines.stat().st_size > 0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "dbcpu: interrupted"
    begun = manifest(scans.parent / "out")
    assert 0 < len(begun) < 90
    names = [path for path in (scans.parent / "out").rglob("*.json") if path.name != "summary.json"]
    assert len(names) == len(begun)
    assert run(scans)[0] == 0


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_any_moment_ends_in_the_same_results(scans: Path, kills: int):
    fill(scans, 40)
    run(scans, "--overlay", "--format", "json,csv", "--crops")
    uninterrupted = results_in(scans.parent / "out")
    (scans.parent / "out").rename(scans.parent / "uninterrupted")
    rng = random.Random(kills)  # noqa: S311 - moments, not secrets
    lines = scans.parent / "out" / "manifest.jsonl"
    for _ in range(kills):
        process = start(scans, "--overlay", "--format", "json,csv", "--crops", "--workers", 2, "-q")
        # The loading of the model is the same every time: most kills come while pages end, or the run does.
        wait_until_growing(process, lines)
        time.sleep(rng.random() * 0.6)
        process.kill()
        process.communicate()
    process = start(scans, "--overlay", "--format", "json,csv", "--crops", "--workers", 2, "-q")
    process.communicate(timeout=120)
    assert process.returncode == 7
    assert results_in(scans.parent / "out") == uninterrupted


def test_what_a_worker_that_died_has_left_half_written_is_gone_at_the_end(scans: Path):
    fill(scans, 40)
    process = start(scans, "--workers", 2, "-q")
    wait_until_growing(process, scans.parent / "out/manifest.jsonl")
    partial = scans.parent / "out/.dbcpu/partial"
    (partial / ".a.png.json.0.0.0.partial").write_text('{"image": ')  # by another process, with the run in its middle
    assert process.poll() is None
    process.communicate(timeout=120)
    assert process.returncode == 7
    assert list(partial.iterdir()) == []


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(scans: Path):
    import resource

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = start(scans, "--overlay", "--overlay-format", "png", "--workers", 1, preexec_fn=no_room)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6, err
    assert "could not be written" in err.splitlines()[-1]
    out = scans.parent / "out"
    assert not list(out.rglob("*.partial"))
    assert all(json.loads(path.read_text()) for path in out.rglob("*.json"))
    assert run(scans, "--overlay", "--overlay-format", "png")[0] == 7
    assert len(manifest(out)) == 6


def test_a_second_run_on_the_same_results_is_refused(scans: Path):
    process = start(scans, "--workers", 1)
    lock = scans.parent / "out/.dbcpu/lock"
    wait_for(lambda: lock.exists() and str(process.pid) in lock.read_text())
    process.send_signal(signal.SIGSTOP)  # so that it cannot end before the second one begins
    code, err = run(scans)
    process.kill()
    process.communicate()
    assert code == 6
    assert f"process {process.pid} on " in err


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert holds()


def wait_until_growing(process: subprocess.Popen[str], lines: Path) -> None:
    """Wait until the file has become longer, or the process has ended."""
    had = lines.stat().st_size if lines.exists() else 0
    wait_for(lambda: process.poll() is not None or (lines.exists() and lines.stat().st_size > had))
