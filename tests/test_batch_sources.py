"""What a run of `dbcpu batch` works on, in which order and under which names."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dbcpu.batch.sources import Sources
from dbcpu.errors import UsageError

pytestmark = pytest.mark.usefixtures("tree")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scans in folders, and what else lies around there."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("scans/b.jpg", "scans/a.PNG", "scans/notes.txt", "scans/Thumbs.db", "scans/.hidden.png"),
        *("scans/box 1/z.tif", "scans/box 1/deep/c.pdf", "scans/.cache/x.png", "scans/a/first.webp"),
        *("more/b.jpg", "loose.dat"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(given: Sequence[str], **settings: Any) -> list[str]:
    return [scan.name for scan in Sources(given=given, **{"results": Path("out"), **settings}).scans()]


def test_a_folder_gives_its_pictures_in_the_order_of_their_names_then_its_folders(tree: Path):
    expected = ["a.PNG", "b.jpg", "a/first.webp", "box 1/z.tif", "box 1/deep/c.pdf"]
    assert names(["scans"]) == names(["scans/"]) == names([str(tree / "scans")]) == expected


def test_files_of_other_kinds_are_left_out_and_counted():
    sources = Sources(given=["scans"], results=Path("out"))
    assert sources.count() == 5
    assert not sources.left_out
    list(sources.scans())
    assert sources.left_out == {".txt": 1, ".db": 1}


def test_several_sources_are_named_from_their_common_folder():
    assert names(["more", "scans/a"]) == ["more/b.jpg", "scans/a/first.webp"]


def test_files_that_are_named_are_taken_whatever_they_are_called():
    assert names(["loose.dat"]) == ["loose.dat"]
    assert names(["scans/.hidden.png", "scans/notes.txt"]) == [".hidden.png", "notes.txt"]


def test_patterns_are_expanded_where_the_shell_did_not():
    assert names(["scans/**/*.tif", "scans/*.jpg"]) == ["box 1/z.tif", "b.jpg"]
    assert names(["scans/*/*.tif"]) == ["box 1/z.tif"]


def test_patterns_stand_for_folders_too():
    assert (
        names(["scans/a", "scans/box 1"]) == names(["scans/*/"]) == ["a/first.webp", "box 1/z.tif", "box 1/deep/c.pdf"]
    )
    assert sorted(names(["scans/*"])) == sorted([*names(["scans"]), "Thumbs.db", "notes.txt"])
    assert names(["scans/**/box*"]) == ["box 1/z.tif", "box 1/deep/c.pdf"]
    assert sorted(names(["**/"])) == sorted(names(["more", "scans"]))
    assert names(["scans/**"]) == names(["scans/**/*.*"])
    assert names(["scans/*"], results="scans/a", exclude=["box*", "*.*"]) == []


def test_include_takes_any_ending_and_exclude_leaves_out_folders_too():
    assert names(["scans"], include=["*.txt", "box*/*.tif"]) == ["notes.txt", "box 1/z.tif"]
    assert names(["scans"], exclude=["box 1", "a.*"]) == ["b.jpg", "a/first.webp"]
    assert names(["scans"], exclude=["box 1/deep"]) == ["a.PNG", "b.jpg", "a/first.webp", "box 1/z.tif"]


def test_lists_name_files_by_lines_or_null_bytes():
    lists = (io.BytesIO(b"scans/b.jpg\r\n\nscans/a.PNG"), io.BytesIO(b"more/b.jpg\0loose.dat\0"))
    assert names([], lists=lists) == ["scans/b.jpg", "scans/a.PNG", "more/b.jpg", "loose.dat"]
    assert names([], lists=(io.BytesIO(b"/dev/null\n"),)) == ["dev/null"]


@pytest.mark.parametrize("name", ["two\nlines.png", "\n", "ends with\r"])
def test_names_with_line_breaks_come_whole_from_a_list_with_null_bytes(tree: Path, name: str):
    (tree / name).write_bytes(b"x")
    lists = (io.BytesIO(f"./{name}\0scans/b.jpg\0".encode()), io.BytesIO(f"scans/b.jpg\0./{name}\0\n".encode()))
    assert names([], lists=lists) == [name, "scans/b.jpg", "scans/b.jpg", name]


def test_a_list_that_is_still_being_written_is_not_waited_for():
    reader, writer = os.pipe()
    with open(reader, "rb") as stream:  # noqa: PTH123 - a descriptor
        arrivals = Sources(lists=(stream,), results=Path("out")).arrivals()
        for name in ("scans/b.jpg", "loose.dat"):
            assert next(arrivals) is None
            os.write(writer, f"{name}\n".encode())
            scan = next(arrivals)
            assert scan is not None
            assert scan.name == name
        os.close(writer)
        assert list(arrivals) == []


def test_the_end_of_a_name_may_come_after_the_name():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        arrivals = Sources(given=[], lists=[stream], results="out").arrivals()
        os.write(writer, b"scans/b.jpg")
        assert next(arrivals) is None
        os.write(writer, b"\0loose.dat\0")
        os.close(writer)
        assert [scan.name for scan in arrivals if scan is not None] == ["scans/b.jpg", "loose.dat"]


def test_a_list_may_be_longer_than_what_is_read_at_once():
    paths = [f"scans/{number}.png" for number in range(10_000)]
    for end in "\n", "\0":
        assert names([], lists=(io.BytesIO(end.join(paths).encode()),)) == paths


def test_the_results_are_not_read_again(tree: Path):
    (tree / "scans/out").mkdir()
    (tree / "scans/out/x.png").write_bytes(b"x")
    sources = Sources(given=["scans"], results=tree / "scans/out")
    assert "out/x.png" not in [scan.name for scan in sources.scans()]


@pytest.mark.parametrize("pattern", ["scans/**/*.png", "./**/x.png", "**/out/*.png", "*/out/x.png"])
def test_patterns_do_not_read_the_results(tree: Path, pattern: str):
    (tree / "scans/out/deep").mkdir(parents=True)
    for folder in ("scans/out", "scans/out/deep"):
        (tree / folder / "x.png").write_bytes(b"x")
    assert names([pattern]) != []
    sources = Sources(given=[pattern, str(tree / pattern)], results="scans/out")
    assert list(sources.scans()) == []


def test_a_pattern_may_begin_in_the_results_but_not_at_them(tree: Path):
    assert [scan.name for scan in Sources(given=["scans/box*/*.tif"], results=tree).scans()] == ["box 1/z.tif"]
    for pattern in ("scans/*.jpg", str(tree / "scans/**/*.jpg")):
        with pytest.raises(UsageError, match="between the scans"):
            Sources(given=[pattern], results="scans").check()


def test_results_between_the_scans_are_refused(tree: Path):
    with pytest.raises(UsageError, match="between the scans"):
        Sources(given=["scans"], results=tree / "scans").check()


def test_a_pattern_over_folders_of_any_depth_is_not_refused():
    for pattern in ("scans/**/c.pdf", "**/b.jpg"):
        Sources(given=[pattern], results=Path("out")).check()


@pytest.mark.parametrize("given", ["nowhere", "scans/*.gif"])
def test_what_is_not_there_is_refused(given: str):
    with pytest.raises(UsageError, match="no such file"):
        Sources(given=[given], results=Path("out")).check()


def test_what_cannot_be_looked_at_is_a_scan_with_its_error(tree: Path):
    os.mkfifo(tree / "scans/pipe.png")
    (tree / "scans/gone.png").symlink_to("nothing")
    (tree / "scans/loop.png").symlink_to("loop.png")
    errors = {scan.name: scan.error for scan in Sources(given=["scans"], results=Path("out")).scans() if scan.error}
    assert errors["pipe.png"] == "not a file of bytes"
    assert errors["gone.png"] == "no such file"
    assert "cannot be looked at" in (errors["loop.png"] or "")
    (scan,) = Sources(lists=(io.BytesIO(b"scans\n"),), results=Path("out")).scans()
    assert scan.error == "a folder, not a picture"


def test_links_to_folders_are_not_followed(tree: Path):
    (tree / "scans/again").symlink_to(tree / "scans")
    assert len(names(["scans"])) == 5


def test_names_that_are_no_text_pass_through():
    odd = os.fsdecode(b"scans/\xff\xfe.png")
    Path(odd).write_bytes(b"x")
    (scan,) = (scan for scan in Sources(given=["scans"], results=Path("out")).scans() if "\udcff" in scan.name)
    assert os.fsencode(scan.path) == b"scans/\xff\xfe.png"


def test_scans_are_yielded_while_a_folder_is_still_being_read(tree: Path):
    scans = Sources(given=["scans", "more"], results=Path("out")).scans()
    next(scans)
    (tree / "more/late.png").write_bytes(b"x")
    assert "more/late.png" in [scan.name for scan in scans]


def test_a_folder_that_went_away_is_a_scan_with_its_error(tree: Path):
    scans = Sources(given=["scans"], results=Path("out")).scans()
    next(scans)
    shutil.rmtree(tree / "scans/box 1")
    errors = {scan.name: scan.error for scan in scans if scan.error}
    assert list(errors) == ["box 1"]
    assert "the folder cannot be read: No such file or directory" in errors["box 1"]
