from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbcpu.geometry import Size
from dbcpu.reading_order import in_reading_order, reading_sequence
from dbcpu.result import DetectionResult, TextInstance

Points = npt.NDArray[np.float32]
Order = Literal["ltr", "rtl-vertical"]
boxes = st.lists(st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(0, 300)] * 2), max_size=25)


def _box(left: float, top: float, width: float, height: float) -> Points:
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def _turned(polygons: list[Points], degrees: float) -> list[Points]:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [(polygon @ turn).astype(np.float32) for polygon in polygons]


def _as_vertical(polygons: list[Points], width: float = 1000) -> list[Points]:
    """The same page for lines that run downwards from right to left."""
    return [np.stack([width - p[:, 1], p[:, 0]], axis=1).astype(np.float32) for p in polygons]


def _lines(left: float, top: float, count: int, width: float = 300, pitch: float = 30) -> list[Points]:
    return [_box(left, top + pitch * line, width, 20) for line in range(count)]


# Each page in the order it is read.
PAGES = {
    "one line": [_box(0, 0, 100, 20)],
    "one column": _lines(0, 0, 10),
    "two columns": _lines(0, 0, 10) + _lines(340, 5, 10),
    "a heading over two columns": [_box(100, 0, 400, 30), *_lines(0, 50, 8), *_lines(340, 50, 8)],
    "two columns, a heading, two columns": [
        *_lines(0, 0, 5),
        *_lines(340, 0, 5),
        _box(0, 170, 640, 20),
        *_lines(0, 210, 5),
        *_lines(340, 210, 5),
    ],
    "three columns of unlike heights": _lines(0, 0, 10) + _lines(340, 0, 4) + _lines(680, 12, 7),
    "words": [_box(x, y, 80, 20) for y in (0, 30, 60, 90) for x in (0, 90, 180)],
    "words in two columns": [_box(x + c, y, 80, 20) for c in (0, 300) for y in range(0, 180, 30) for x in (0, 90, 180)],
    "a receipt": [_box(x, y, w, 20) for y in range(0, 240, 30) for x, w in ((0, 200), (400, 60))],
    "halved verses": [_box(x, y, 120, 20) for y in range(0, 300, 30) for x in (0, 160)],
    "names over short speeches": [
        _box(x, 30 * i, w, 20)
        for i, (x, w) in enumerate([(200, 60), (0, 150), (210, 60), (0, 40), (205, 50), (0, 400)])
    ],
    "a number in the corner": [_box(600, 0, 20, 20), *_lines(0, 50, 6, width=500)],
}


@pytest.mark.parametrize("tilt", [0, -3, 3])
@pytest.mark.parametrize("order", ["ltr", "rtl-vertical"])
@pytest.mark.parametrize("page", PAGES)
def test_pages_are_read_as_people_read_them(page: str, order: Order, tilt: float):
    polygons = _as_vertical(PAGES[page]) if order == "rtl-vertical" else PAGES[page]
    shuffled = np.random.default_rng(0).permutation(len(polygons))
    tilted = _turned(polygons, tilt)
    sequence = reading_sequence([tilted[index] for index in shuffled], order)
    assert shuffled[sequence].tolist() == list(range(len(polygons)))


def test_the_right_page_of_a_vertical_spread_is_read_first_with_all_its_bands():
    def page(left: float) -> list[Points]:
        return [_box(left + x, y, 20, 200) for y in (0, 240) for x in (90, 60, 30, 0)]

    polygons = page(400) + page(0)
    assert reading_sequence(polygons, "rtl-vertical") == list(range(len(polygons)))


# Polygons without an extent, where columns may touch each other.
flat = st.lists(
    st.tuples(st.sampled_from([0, 100, 110]), st.integers(0, 30), st.sampled_from([0, 100]), st.just(0)), max_size=30
)
TOUCHING_COLUMNS = [(x, y, 100, 0) for x in (0, 110) for y in range(6)] + [(100, 3, 0, 0)]


@given(boxes | flat, st.sampled_from(["ltr", "rtl-vertical"]))
@example(TOUCHING_COLUMNS, "ltr")
def test_every_instance_is_read_once(boxes: list[tuple[int, int, int, int]], order: Order):
    sequence = reading_sequence([_box(*box) for box in boxes], order)
    assert sorted(sequence) == list(range(len(boxes)))


def test_no_order_leaves_the_result_alone():
    result = DetectionResult(
        image="x",
        page=1,
        image_size=Size(100, 400),
        instances=tuple(TextInstance(polygon=p, score=0.5) for p in reversed(PAGES["one column"])),
        truncated=False,
        model="final",
        settings={"shape": "quad"},
    )
    assert in_reading_order(result, "none") is result
    ordered = in_reading_order(result, "ltr")
    assert [i.polygon.tolist() for i in ordered.instances] == [p.tolist() for p in PAGES["one column"]]
    assert ordered.settings == {"shape": "quad", "order": "ltr"}


def _truth(path: Path) -> list[Points]:
    polygons = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        values = []
        for field in line.split(","):
            try:
                values.append(float(field))
            except ValueError:
                break
        if len(values) >= 6:
            polygons.append(np.array(values[: len(values) // 2 * 2], np.float32).reshape(-1, 2))
    return polygons


# Share of pairs of lines in the order of the truth; that of tapuscorpus goes by the first corner of each line.
@pytest.mark.parametrize(
    ("pattern", "order", "share"),
    [("layouts/*", "rtl-vertical", 0.98), ("test/sroie/gts/*", "ltr", 0.95), ("t*/tapuscorpus/gts/*", "ltr", 0.95)],
)
def test_real_pages_are_read_as_they_were_transcribed(shared: Path, pattern: str, order: Order, share: float):
    right = pairs = 0
    for path in sorted((shared / "data").glob(pattern)):
        position = np.argsort(reading_sequence(_truth(path), order))
        upper = np.triu_indices(len(position), k=1)
        right += int((position[upper[0]] < position[upper[1]]).sum())
        pairs += len(upper[0])
    assert pairs > 1000
    assert right / pairs > share


def test_a_spread_of_vertical_lines_is_read_from_right_to_left(shared: Path):
    polygons = _truth(shared / "data/test/ndl_docl/gts/gt_kotenseki_3508165_8.txt")
    sequence = reading_sequence(polygons, "rtl-vertical")
    whole = [index for index in sequence if np.ptp(polygons[index][:, 1]) > 500]
    assert len(whole) > 15
    assert (np.diff([polygons[index][:, 0].mean() for index in whole]) < 0).all()


def test_a_spread_of_horizontal_lines_is_read_page_by_page(shared: Path):
    polygons = _truth(shared / "data/test/ndl_docl/gts/gt_kindai_1029114_7.txt")
    centres = np.array([polygons[index].mean(axis=0) for index in reading_sequence(polygons, "ltr")])
    is_right = centres[:, 0] > 840  # the gutter
    assert (np.diff(is_right.astype(int)) >= 0).all()
    assert (np.diff(centres[is_right, 1]) > 0).all()
