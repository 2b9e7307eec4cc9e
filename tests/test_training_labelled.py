"""Real pictures with the lines that are to be seen in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbcpu.errors import UsageError
from scripts.train import labelled
from scripts.train.truth import list_pages, read_page

ROW = {"picture": "package/a/door.png", "size": [60, 40], "held_back": False, "lines": [[6, 4, 54, 4, 54, 12, 6, 12]]}


def write_labels(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_labelled_pictures_become_pages_of_the_size_that_the_labels_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    picture = np.zeros((80, 120, 4), np.uint8)
    picture[:, :60] = (200, 10, 10, 255)  # red; the right half lets the ground through
    (tmp_path / "package/a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "package/a/door.png")
    ignored = [[0, 30, 60, 30, 60, 40, 0, 40]]
    empty = {"picture": "package/a/door.png", "size": [120, 80], "held_back": True, "lines": [], "ignored": []}
    labels = write_labels(tmp_path / "labels", ROW | {"ignored": ignored}, empty)
    out = ["--out", str(tmp_path / "out"), "--labels", str(labels)]
    monkeypatch.setattr("sys.argv", ["labelled", str(tmp_path), *out])
    labelled.main()

    (page,) = list_pages(tmp_path / "out/train")
    pixels, lines = read_page(page, 1000)
    assert pixels.shape == (40, 60, 3)
    np.testing.assert_allclose(pixels[20, 10], (10, 10, 200), atol=12)
    np.testing.assert_allclose(pixels[20, 50], (128, 128, 128), atol=12)
    assert [line.ignored for line in lines] == [False, True]
    np.testing.assert_array_equal(lines[0].polygon, [[6, 4], [54, 4], [54, 12], [6, 12]])
    (page,) = list_pages(tmp_path / "out/held_back")
    pixels, lines = read_page(page, 1000)
    assert (pixels.shape, lines) == ((80, 120, 3), [])


def test_pictures_that_are_missing_can_be_skipped_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "package/a").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(tmp_path / "package/a/door.png")
    gone = ROW | {"picture": "gone/window.png", "ignored": []}
    labels = write_labels(tmp_path / "labels", gone, ROW | {"ignored": []})
    arguments = ["labelled", str(tmp_path), "--out", str(tmp_path / "out"), "--labels", str(labels)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit):
        labelled.main()
    assert "window.png" in capsys.readouterr().err

    monkeypatch.setattr("sys.argv", [*arguments, "--skip-missing"])
    labelled.main()
    assert "window.png is missing" in capsys.readouterr().err
    (page,) = list_pages(tmp_path / "out/train")
    assert page.image.stem == "0001_door"  # the number is the label's


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("none.png", (60, 40), "cannot read"), ("text.png", (60, 40), "cannot read"), ("door.png", (60, 60), "120x80")],
)
def test_a_picture_that_is_not_the_labelled_one_is_refused(
    tmp_path: Path, name: str, size: tuple[int, int], message: str
):
    Image.new("RGB", (120, 80)).save(tmp_path / "door.png")
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(UsageError, match=message) as error:
        labelled.read_picture(tmp_path / name, size)
    assert name in str(error.value)


def test_a_labelled_picture_is_read_upright(tmp_path: Path):
    sideways = Image.new("RGB", (120, 80), "black")
    sideways.paste("white", (0, 0, 60, 80))  # its left half, the upper one once it is turned clockwise
    exif = Image.Exif()
    exif[0x112] = 6
    sideways.save(tmp_path / "door.png", exif=exif)
    picture = labelled.read_picture(tmp_path / "door.png", (40, 60))
    assert picture.shape == (60, 40, 3)
    assert picture[:30].min() == 255
    assert picture[30:].max() == 0


def test_the_labels_are_of_lines_inside_their_pictures_each_named_once():
    rows = [json.loads(text) for text in labelled.LABELS.read_text(encoding="utf-8").splitlines()]
    assert len({row["picture"] for row in rows}) == len(rows)
    for row in rows:
        for line in labelled.read_label(row):
            assert len(line.polygon) >= 4, row["picture"]
            assert ((line.polygon >= 0) & (line.polygon <= row["size"])).all(), row["picture"]
    assert any(row["lines"] for row in rows)
