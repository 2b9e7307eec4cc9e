from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcpu.errors import OutputError
from dbcpu.files import complete_file, make_folder, write_file
from dbcpu.geometry import Size
from dbcpu.result import DetectionResult, TextInstance
from dbcpu.writers.icdar import icdar_lines
from dbcpu.writers.json_document import json_document, json_line
from dbcpu.writers.names import output_names, page_name, seen_from
from dbcpu.writers.overlay import draw_overlay
from dbcpu.writers.page_files import possible_names


def _result(*polygons: list[list[float]], image: str = "page.jpg") -> DetectionResult:
    return DetectionResult(
        image=image,
        page=1,
        image_size=Size(100, 200),
        instances=tuple(TextInstance(polygon=np.array(p, np.float32), score=0.75) for p in polygons),
        truncated=False,
        model="final",
        settings={"shape": "quad"},
    )


PAGES = [(1, False), (1, True), (2, True)]
QUAD = [[10, 20], [110, 20], [110, 50], [10, 50]]


def test_a_json_line_is_one_line_and_says_the_same_as_the_document():
    result = _result(QUAD, [[0, 0], [5, 0], [5.5, 5]])
    line = json_line(result)
    assert "\n" not in line
    assert json.loads(line) == json.loads(json_document(result))
    assert json.loads(line) == {
        "schema_version": 1,
        "image": "page.jpg",
        "page": 1,
        "width": 200,
        "height": 100,
        "model": "final",
        "settings": {"shape": "quad"},
        "truncated": False,
        "instances": [
            {"polygon": QUAD, "score": 0.75},
            {"polygon": [[0, 0], [5, 0], [5.5, 5]], "score": 0.75},
        ],
    }


def test_a_page_without_text_gives_an_empty_list_and_no_lines():
    assert json.loads(json_document(_result()))["instances"] == []
    assert icdar_lines(_result()) == ""


def test_names_that_are_not_utf8_stay_valid_json():
    line = json_line(_result(image="\udcff.jpg"))
    assert json.loads(line.encode("utf-8"))["image"] == "\udcff.jpg"


def test_icdar_lines_are_whole_coordinates_and_the_score():
    assert icdar_lines(_result(QUAD)) == "10,20,110,20,110,50,10,50,0.75\n"


def test_a_stem_names_the_results_unless_two_inputs_share_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    names = output_names(["a.jpg", "b.v2.jpg", "x/c.png", "x/c.jpg", "-"])
    assert {given: str(name) for given, name in names.items()} == {
        "a.jpg": "a",
        "b.v2.jpg": "b.v2",
        "x/c.png": "c.png",
        "x/c.jpg": "c.jpg",
        "-": "stdin",
    }


def test_inputs_that_share_their_full_name_keep_their_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    names = output_names(["in/a/1.jpg", "in/b/1.jpg", "in/2.jpg"])
    assert [str(names[given]) for given in names] == ["a/1.jpg", "b/1.jpg", "2"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c/d", ".."]),
            st.sampled_from(
                ["1.jpg", "1.png", "1", "1.x.jpg", "1.jpg.png", "1.p0002.jpg", "1.labelme.jpg", "1.jpg.p0001.png"]
            ),
        )
    )
)
def test_no_two_inputs_write_the_same_file(inputs: list[tuple[str, str]]):
    given = ["/".join(parts) for parts in dict.fromkeys(inputs)]
    names = output_names(given)
    assert len(set(names.values())) == len(names)
    pages = [[page_name(name, page, several=several) for page, several in PAGES] for name in names.values()]
    files = [{file for page in own for file in possible_names(page)} for own in pages]
    assert len(set().union(*files)) == sum(map(len, files))


def test_a_name_that_goes_on_after_another_one_keeps_its_ending():
    names = output_names(["a.jpg", "a.png", "a.jpg.png", "b.tif", "b.p0002.jpg", "bc.jpg"])
    assert [str(name) for name in names.values()] == ["a.jpg", "a.png", "a.jpg.png", "b", "b.p0002.jpg", "bc"]


def test_pages_of_several_carry_their_number():
    assert str(page_name(Path("a/scan"), 3, several=True)) == "a/scan.p0003"
    assert str(page_name(Path("scan"), 1, several=False)) == "scan"


def test_the_picture_is_found_from_a_result_behind_a_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.jpg").touch()
    (tmp_path / "other/deep/results").mkdir(parents=True)
    (tmp_path / "link").symlink_to("other/deep/results", target_is_directory=True)
    (tmp_path / "scans").symlink_to("pictures", target_is_directory=True)
    (tmp_path / "pictures/b.jpg").symlink_to("a.jpg")
    assert seen_from(Path("other/a.json"), "pictures/a.jpg") == str(Path("../pictures/a.jpg"))
    for image in ("pictures/a.jpg", "scans/a.jpg", "scans/b.jpg", str(tmp_path / "pictures/a.jpg")):
        seen = seen_from(Path("link/a.json"), image)
        assert (Path("link") / seen).samefile("pictures/a.jpg")
        assert Path(seen).name == Path(image).name


@pytest.mark.parametrize("size", [(1, 1), (40, 3), (300, 500)])
def test_an_overlay_marks_the_instances_and_leaves_the_picture_alone(size: tuple[int, int]):
    pixels = np.full((*size, 3), 255, np.uint8)
    drawn = draw_overlay(pixels, _result(QUAD, [[-5, -5], [2, -5], [2, 2], [-5, 2]]))
    assert (pixels == 255).all()
    assert drawn.shape == pixels.shape
    assert (drawn != 255).any()


def test_a_file_appears_only_when_complete(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text("before")

    def interrupted() -> None:
        with complete_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_file(path, b"after")
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_to_write_names_the_file_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(OutputError, match="could not be written"):
        write_file(tmp_path / "no" / "x.json", b"")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="folder cannot be created"):
        make_folder(tmp_path / "file" / "below")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path):
    resource = pytest.importorskip("resource", reason="limits on file sizes exist on Unix only")
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OutputError, match="File too large"):
            write_file(tmp_path / "x", b"0" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
