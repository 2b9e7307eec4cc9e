"""What a model gets wrong on training pages, and crops that show it more often."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dbcpu.detector import DEFAULT_MODEL
from dbcpu.errors import UsageError
from scripts.train import mistakes
from scripts.train.crops import CropSettings, cut_crop
from scripts.train.sources import CropReader, Source
from scripts.train.truth import IGNORED, Line, PageFile, read_lines, read_page_and_mistakes, rectangle, write_lines

BOX = rectangle(100, 700, 500, 760)  # nothing is there
WORDS = [(200, "found and known"), (400, "found, in no truth"), (600, "found, to be ignored")]


def write_page(folder: Path) -> PageFile:
    """Write a page of three printed lines, of which the truth knows one, ignores one, and has one that is not there."""
    page = PageFile(folder / "images/a.png", folder / "gts/gt_a.txt")
    for path in (page.image, page.truth):
        path.parent.mkdir(parents=True)
    picture = np.full((900, 1300, 3), 245, np.uint8)
    for y, text in WORDS:
        cv2.putText(picture, text, (100, y), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (20, 20, 20), 3, cv2.LINE_AA)
    cv2.imwrite(str(page.image), picture)
    known, ignored = rectangle(95, 160, 500, 215), rectangle(80, 540, 700, 630)
    write_lines(page.truth, [Line(known, "a"), Line(ignored, IGNORED), Line(BOX, "nothing")])
    return page


def test_missed_lines_and_false_ones_are_outlined_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = write_page(tmp_path)
    monkeypatch.setattr("sys.argv", ["mistakes", str(DEFAULT_MODEL), str(tmp_path)])
    mistakes.main()
    missed, false = read_lines(page.mistakes)
    np.testing.assert_array_equal(missed.polygon, BOX)
    left, top, right, bottom = *false.polygon.min(axis=0), *false.polygon.max(axis=0)
    assert left < 140
    assert 330 < top < 400 < bottom < 440
    assert right > 400

    _, lines, found = read_page_and_mistakes(page, 450)
    assert len(lines) == 3
    np.testing.assert_array_equal(found[0].polygon, BOX / 2)


def test_a_folder_without_pages_has_no_mistakes_to_find(tmp_path: Path):
    with pytest.raises(UsageError, match="no pages"):
        mistakes.write_mistakes(None, tmp_path)  # type: ignore[arg-type]


def test_crops_show_mistakes_more_often_than_other_lines():
    page = np.zeros((2000, 2000, 3), np.uint8)
    page[1500:1520, 1500:1600] = 255  # the mistake
    lines = [Line(rectangle(100, y, 200, y + 20)) for y in range(100, 600, 50)]
    settings = CropSettings(side=256, short_side=2000, degrees=0, steep_share=0)
    rng = np.random.default_rng(0)
    shown = [
        np.mean([cut_crop(page, lines, settings, rng, wrong)[0].any() for _ in range(200)])
        for wrong in ([], [Line(rectangle(1500, 1500, 1600, 1520))])
    ]
    assert shown[0] < 0.1
    assert 0.35 < shown[1] < 0.65


def test_training_reads_the_mistakes_beside_its_pages(tmp_path: Path):
    page = write_page(tmp_path)
    page.mistakes.parent.mkdir()
    write_lines(page.mistakes, [Line(BOX, "nothing")])
    reader = CropReader([Source(tmp_path, 1.0, whole=True)], CropSettings(side=64), np.random.default_rng(0))
    assert len(reader._read(page)[2]) == 1
