"""Pages through a cluster: what pages cost, the desk, and runs whose results are those of the local engine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import results_in, run_cli
from PIL import Image
from works import OddPages

from dbcpu.batch.records import PageRecord, Scan, Task
from dbcpu.cluster.costs import CostModel, cut_parcel
from dbcpu.cluster.desk import STOPPED, Desk

ROOT = Path(__file__).parents[1]


def task(name: str, size: int = 0, **fields: Any) -> Task:
    return Task(scan=Scan(path=name, name=name, size=size), **fields)


def ended(name: str, size: int, seconds: float) -> PageRecord:
    return PageRecord(path=name, page=1, size=size, mtime_ns=0, status="done", seconds=seconds, settings="s")


# Costs


def test_costs_are_learnt_for_each_ending_as_a_line_over_the_size():
    costs = CostModel()
    assert costs.seconds(task("a.jpg", 5)) == costs.seconds(task("b.tif", 10**9))
    for size in (1_000_000, 3_000_000, 10_000_000):
        costs.learn(ended("a.jpg", size, 0.5 + size / 10_000_000))
        costs.learn(ended("a.png", 500_000, 0.1))
    assert costs.seconds(task("b.JPG", 50_000_000)) == pytest.approx(5.5, rel=0.01)
    assert costs.seconds(task("b.png", 50_000_000)) == pytest.approx(0.1)
    assert costs.seconds(task("b.jpg", 2_000_000, first_page=3, last_page=6)) == pytest.approx(4 * 0.7, rel=0.01)


def test_parcels_take_the_same_time_whatever_their_pages_cost():
    costs = CostModel()
    for size in (10_000, 1_000_000):
        costs.learn(ended("a.jpg", size, size / 100_000))
    sizes = [10_000] * 40 + [1_000_000, 2_000_000] + [10_000] * 40
    waiting = deque(task(f"{number}.jpg", size) for number, size in enumerate(sizes))
    parcels = []
    while waiting:
        parcels.append([t.scan.size for t in cut_parcel(waiting, costs, workers=2)])
    assert [size for parcel in parcels for size in parcel] == sizes
    assert [parcel for parcel in parcels if sum(parcel) > 400_000] == [[1_000_000], [2_000_000]]
    assert max(len(parcel) for parcel in parcels) > 8
    assert len(parcels[-1]) == 1, "the last ones are small"


# The desk


def test_a_desk_gives_parcels_by_number_and_nothing_for_those_that_are_settled():
    async def story() -> None:
        desk = Desk()
        waiting = asyncio.create_task(desk.take(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await desk.lay_out({0: b"zero", 1: b"one"}, 2)
        assert await waiting == b"zero"
        assert [await desk.begin(0, "here"), await desk.begin(0, "there")] == [0, 1]
        await desk.settle(0)
        assert [await desk.take(0), await desk.take(1), await desk.take(1)] == [b"", b"one", b"one"]
        news = await desk.news()
        assert (news.begun, (await desk.news()).begun) == ({0: "there"}, {})
        await desk.stop()
        assert await desk.begin(1, "here") == STOPPED
        await desk.close()
        assert [await desk.take(1), await desk.take(2)] == [b"one", None]

    asyncio.run(story())


# Runs


@pytest.fixture
def scans(tmp_path: Path, synthetic: Any) -> Path:
    """Pages of several kinds, one of them broken, one of them huge, and a book."""
    folder = tmp_path / "scans"
    (folder / "box 1").mkdir(parents=True)
    page = synthetic.image(4)
    for number in range(8):
        cv2.imwrite(str(folder / f"box 1/{number}.png"), page)
    cv2.imwrite(str(folder / "a.png"), page[::-1])
    cv2.imwritemulti(str(folder / "many.tif"), [page, page[:, ::-1], page[::-1]])
    pages = [Image.fromarray(np.full((60, 40 + number, 3), 255, np.uint8)) for number in range(20)]
    pages[0].save(folder / "book.pdf", save_all=True, append_images=pages[1:], resolution=200)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_ray_gives_what_the_local_engine_gives_and_goes_on_where_it_stopped(
    scans: Path, monkeypatch: pytest.MonkeyPatch, make_checkpoint: Any
):
    monkeypatch.chdir(scans.parent)  # the paths of workers must not depend on it
    weights = make_checkpoint("deformable_resnet18", "legacy")
    options = ("--short-side", 64, "-q", "--format", "json,csv,hocr", "--overlay", "--weights", weights)
    assert run_cli("batch", "scans", "local", *options, "--workers", 0)[0] == 7
    code, out, err = run_cli("batch", "scans", "ray", *options, "--engine", "ray")
    assert (code, out) == (7, "")
    assert "failed: broken.jpg, page 1: " in err
    assert results_in(Path("ray")) == results_in(Path("local"))
    before = results_in(Path("ray"))
    Path("ray/box 1/3.png.json").unlink()
    code, _, err = run_cli("batch", "scans", "ray", *options[:2], *options[3:], "--engine", "ray", "--log-json")
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [event["path"] for event in events if event["event"] == "page"] == ["box 1/3.png"]
    assert results_in(Path("ray")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "ray", "--workers", 0), "workers"),
        (("--address", "auto"), "--engine ray"),
    ],
)
def test_options_that_do_not_go_with_the_engine_are_refused(scans: Path, arguments: tuple[object, ...], words: str):
    pytest.importorskip("ray.data", reason="needs ray[data]")
    code, _, err = run_cli("batch", scans, scans.parent / "out", *arguments)
    assert code == 2
    assert words in err


def test_without_ray_the_engine_is_refused_in_one_line(scans: Path):
    code = "import sys; sys.modules['ray'] = None; from dbcpu.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "batch", str(scans), str(scans.parent / "out"), "--engine", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "pip install 'dbcpu[ray]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_desk_that_is_killed_is_laid_out_anew(tmp_path: Path):
    import ray

    from dbcpu.cluster.engine import RayEngine

    engine = RayEngine(OddPages(str(tmp_path)), address=None, workers=2, cpus=2, seconds_per_page=30)
    records = []
    for record in engine.run(iter([task(f"{n}.tif") for n in range(100)]), is_stopped=lambda: False):
        if isinstance(record, PageRecord):
            records.append((record.path, record.page))
            if len(records) == 30:
                ray.kill(engine._desk, no_restart=False)
    engine.close(graceful=True)
    assert sorted(records) == sorted((f"{n}.tif", page) for n in range(100) for page in (1, 2, 3))
