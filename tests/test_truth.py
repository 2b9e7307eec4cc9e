from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbcpu.errors import ImageError, TruthError
from dbcpu.geometry import Size
from dbcpu.result import DetectionResult, TextInstance
from dbcpu.truth import TruthInstance, read_detections, read_truth
from dbcpu.writers.icdar import icdar_lines
from dbcpu.writers.json_document import json_document

QUAD = "10,20,110,20,110,50,10,50"
QUAD_POINTS = [[10, 20], [110, 20], [110, 50], [10, 50]]
FIVE = "0,0,40,0,50,10,40,20,0,20"


def _read(folder: Path, *lines: str, content: bytes | None = None) -> tuple[TruthInstance, ...]:
    (folder / "gt_page.txt").write_bytes("\n".join(lines).encode() if content is None else content)
    return read_truth(folder).pages["page"]


@pytest.mark.parametrize(
    "text",
    ["word", "14", "2.13", "-5", "1e5", "", "nan", "inf", "a,b", "1,234", "3, 4 pm", "12,345,678", "1,000,000.50"],
)
def test_the_text_of_a_quad_is_never_a_coordinate(tmp_path: Path, text: str):
    (instance,) = _read(tmp_path, f"{QUAD},{text}")
    assert instance.polygon.tolist() == QUAD_POINTS
    assert not instance.ignored


def test_a_number_after_five_points_is_text_too(tmp_path: Path):
    instances = _read(tmp_path, f"{FIVE},word", f"{FIVE},678", f"{FIVE},12,5", f"{QUAD},14")
    assert [len(instance.polygon) for instance in instances] == [5, 5, 5, 4]


def test_thousands_are_text_where_all_others_are_quads(tmp_path: Path):
    lines = [f"{QUAD},word", f"{QUAD},12,345,678"]
    assert [len(instance.polygon) for instance in _read(tmp_path, *lines)] == [4, 4]
    assert [len(instance.polygon) for instance in _read(tmp_path, *lines, f"{FIVE},word")] == [4, 5, 5]


@pytest.mark.parametrize("text", ["12,345,678", "-12,345,678.90", "12,345,678 RM", "12,345,678€", "1,234,567,890"])
def test_thousands_are_text_to_the_end_of_the_line(tmp_path: Path, text: str):
    for lines in ([f"{QUAD},{text}"], [f"{QUAD},word", f"{QUAD},{text}"]):
        assert [instance.polygon.tolist() for instance in _read(tmp_path, *lines)] == [QUAD_POINTS] * len(lines)


def test_a_line_of_another_form_changes_no_other_line(tmp_path: Path):
    quads = [f"{QUAD},word", f"{QUAD},14", f"{QUAD},12,345,678"]
    assert [len(instance.polygon) for instance in _read(tmp_path, *quads, f"{FIVE},word")] == [4, 4, 4, 5]
    fives = [f"{FIVE},word", f"{FIVE},14", f"{QUAD},12,345,678"]
    assert [len(instance.polygon) for instance in _read(tmp_path, *fives, f"{QUAD},word")] == [5, 5, 5, 4]


_TEXTS = st.sampled_from(["word", "two words", "###", "", "7", "14", "2.13", "1234", "-5"])
_SIDES = st.integers(0, 1200)


@settings(deadline=None)
@given(st.data(), st.sampled_from([1, 10]), st.sampled_from([5, 7, 14]))
def test_polygons_of_whole_numbers_are_read_in_full(data: st.DataObject, lines: int, points: int):
    texts = _TEXTS if points == 5 else _TEXTS | st.integers(0, 999).map(str)  # "678" after five is told apart by others
    polygon = st.lists(st.tuples(_SIDES, _SIDES), min_size=points, max_size=points)
    page = data.draw(st.lists(st.tuples(polygon, texts), min_size=lines, max_size=lines))
    if points == 5 and lines > 1:
        page = [*page, *((polygon, data.draw(st.integers(0, 999).map(str))) for polygon, _ in page)]
    rows = [",".join([*(str(side) for point in polygon for side in point), text]) for polygon, text in page]
    with tempfile.TemporaryDirectory() as folder:
        instances = _read(Path(folder), *rows)
    assert [instance.polygon.tolist() for instance in instances] == [[[*map(float, p)] for p in row] for row, _ in page]
    assert [instance.ignored for instance in instances] == [text == "###" for _, text in page]


def test_byte_order_mark_line_ends_and_blank_lines_do_not_matter(tmp_path: Path):
    content = f"\ufeff{QUAD},繁體字\r\n\r\n {QUAD.replace(',', ' , ')} ,### \r\n".encode()
    instances = _read(tmp_path, content=content)
    assert [instance.polygon.tolist() for instance in instances] == [QUAD_POINTS] * 2
    assert [instance.ignored for instance in instances] == [False, True]


def test_lines_may_end_in_any_way_and_are_numbered_alike(tmp_path: Path):
    for end in ("\n", "\r\n", "\r"):
        lines = end.join([f"{QUAD},a\u2028b", "", f"{FIVE},word", ""]).encode()
        assert [len(instance.polygon) for instance in _read(tmp_path, content=lines)] == [4, 5]
        for bad, what in ((b"word", "not x1"), (b"caf\xe9", "not UTF-8")):
            with pytest.raises(TruthError, match=f"line 4: {what}"):
                _read(tmp_path, content="\ufeff".encode() + lines + "頁".encode() + bad)


def test_an_empty_file_is_a_page_without_text(tmp_path: Path):
    assert _read(tmp_path, content=b"") == ()
    assert _read(tmp_path, content="\ufeff\r\n".encode()) == ()


@pytest.mark.parametrize(
    "line", [QUAD, "1,2,3,4,word", "word", "1,2,3,x,5,6,7,8,word", f"{QUAD.replace('10', '1e999')},a"]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str):
    with pytest.raises(TruthError, match=r"gt_page\.txt, line 3: "):
        _read(tmp_path, f"{QUAD},good", "", line)


@pytest.mark.parametrize("far", ["1e200", "-1000000001"])
def test_coordinates_that_no_picture_has_are_refused(tmp_path: Path, far: str):
    with pytest.raises(TruthError, match=r"gt_page\.txt, line 2: a coordinate beyond 1e\+09"):
        _read(tmp_path, f"{QUAD.replace('110', '1e9')},good", f"{QUAD.replace('110', far)},word")
    (tmp_path / "page.json").write_text(f'{{"instances": [{{"polygon": [[0, 0], [1, {far}], [1, 1]]}}]}}', "utf-8")
    with pytest.raises(TruthError, match=r"page\.json: a coordinate beyond"):
        read_detections(tmp_path, ["page"])


def test_bytes_that_are_no_text_are_named(tmp_path: Path):
    with pytest.raises(TruthError, match=r"gt_page\.txt, line 2: not UTF-8"):
        _read(tmp_path, content=f"{QUAD},good\n{QUAD},caf".encode() + b"\xe9\n")


def test_polygons_without_texts_are_refused(tmp_path: Path):
    with pytest.raises(TruthError, match="no line has a text"):
        _read(tmp_path, FIVE, f"{FIVE},5,5")


def test_a_folder_without_truth_is_refused(tmp_path: Path):
    with pytest.raises(TruthError, match="no gt_"):
        read_truth(tmp_path)
    with pytest.raises(TruthError, match="no such folder"):
        read_truth(tmp_path / "none")


def test_a_set_is_found_from_its_folder_and_from_its_gts(tmp_path: Path):
    (tmp_path / "set/gts").mkdir(parents=True)
    (tmp_path / "set/images").mkdir()
    for stem in ("b.1", "a", "b"):
        (tmp_path / f"set/gts/gt_{stem}.txt").write_text(f"{QUAD},word\n", encoding="utf-8")
        (tmp_path / f"set/images/{stem}.JPG").touch()
    (tmp_path / "set/images/a.txt").touch()
    for folder in (tmp_path / "set", tmp_path / "set/gts"):
        truth = read_truth(folder)
        assert (truth.name, list(truth.pages)) == ("set", ["a", "b", "b.1"])
        assert [truth.picture(stem).name for stem in truth.pages] == ["a.JPG", "b.JPG", "b.1.JPG"]
    (tmp_path / "set/images/a.png").touch()
    (tmp_path / "set/images/b.JPG").unlink()
    for stem, what in (("a", r"several pictures of one page: a\.JPG, a\.png"), ("b", "no such picture")):
        with pytest.raises(ImageError, match=what):
            truth.picture(stem)


def test_what_detect_writes_is_read_in_both_formats(tmp_path: Path):
    polygons = [np.array(QUAD_POINTS, np.float32), np.array([[0, 0], [5, 0], [9, 9], [5, 12], [0, 12]], np.float32)]
    result = DetectionResult(
        image="page.jpg",
        page=1,
        image_size=Size(100, 200),
        instances=tuple(TextInstance(polygon=polygon, score=0.75) for polygon in polygons),
        truncated=False,
        model="final",
        settings={},
    )
    (tmp_path / "a.json").write_text(json_document(result), encoding="utf-8")
    (tmp_path / "res_b.txt").write_text(icdar_lines(result), encoding="utf-8")
    for detections in read_detections(tmp_path, ["a", "b"]).values():
        assert [detection.polygon.tolist() for detection in detections] == [polygon.tolist() for polygon in polygons]
        assert [detection.score for detection in detections] == [0.75, 0.75]


def test_scores_may_be_missing(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"instances": [{"polygon": QUAD_POINTS}]}), encoding="utf-8")
    (tmp_path / "res_b.txt").write_text(f"{QUAD}\n{QUAD},1e-3\n", encoding="utf-8")
    found = read_detections(tmp_path, ["a", "b"])
    assert [[detection.score for detection in page] for page in found.values()] == [[None], [None, 0.001]]


def test_pages_and_files_without_each_other_are_warned_of(tmp_path: Path, warnings_logged: pytest.LogCaptureFixture):
    for stem in ("a", "x", "y"):
        (tmp_path / f"{stem}.json").write_text('{"instances": []}', encoding="utf-8")
    found = read_detections(tmp_path, ["a", *"bcdef"])
    assert found == dict.fromkeys("abcdef", ())
    assert [record.getMessage().split(": ", 1)[1] for record in warnings_logged.records] == [
        "no detections of a page, counted as nothing found: b, c, d and 2 more",
        "detections of a page without ground truth: x, y",
    ]
    with pytest.raises(TruthError, match="of any page"):
        read_detections(tmp_path, ["b"])
    with pytest.raises(TruthError, match="no such folder"):
        read_detections(tmp_path / "none", ["b"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", '{"instances": 5}'),
        ("a.json", '{"instances": [{"polygon": [[1, 2], [3, 4]]}]}'),
        ("a.json", '{"instances": [{"polygon": [[1, 2, 3], [4, 5, 6]]}]}'),
        ("a.json", '{"instances": [{"polygon": [[0, 0], [1, 0], [1, NaN]]}]}'),
        ("a.json", '{"instances": [{"polygon": [[0, 0], [1, 0], [1, 1]], "score": NaN}]}'),
        ("a.json", '{"instances": [{"polygon": [[0, 0], [1, 0], [1, 1]], "score": "high"}]}'),
        ("a.json", '{"instances": [{"polygon": [[0, 0], [1, 0], [1, 1' + "0" * 400 + "]]}]}"),
        ("a.json", "[" * 100_000),
        ("res_a.txt", "1,2,3,4,0.5"),
        ("res_a.txt", f"{QUAD},word"),
    ],
)
def test_a_bad_file_of_detections_is_named(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TruthError, match=name):
        read_detections(tmp_path, ["a"])
