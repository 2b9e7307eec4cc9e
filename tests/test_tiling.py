from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers import run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

from dbcpu import load_detector
from dbcpu.config import PreprocessConfig
from dbcpu.errors import ImageError, UsageError
from dbcpu.text_height import letter_height
from dbcpu.tiling import _spans, _take_tall_kernels, choose_factor, preprocess_tiles, read_tiles

SAMPLE = np.asarray(cv2.imread(str(Path(__file__).parent / "data" / "sample.jpg")), np.uint8)


def _blue(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    """Stand for a network that looks at single pixels, so that tiles must give what the whole page gives."""
    return tensor[0, 0].numpy()


def _pasted(*pieces: tuple[npt.NDArray[np.uint8], int, int], height: int, width: int) -> npt.NDArray[np.uint8]:
    page = np.full((height, width, 3), 250, np.uint8)
    for piece, top, left in pieces:
        page[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    return page


# The tiles


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 40))
def test_spans_overlap_and_their_weights_add_up_to_one(length: int, side: int):
    length, side = length * 32, side * 32
    total = np.zeros(length)
    end = 0
    for start, weights in _spans(length, side):
        assert start % 32 == 0
        assert start + len(weights) > end >= start + min(96, side // 2 - 32) * (start > 0)
        assert weights.min() > 0
        end = start + len(weights)
        total[start:end] += weights
    np.testing.assert_allclose(total, 1, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(50, 150), st.integers(50, 150), st.floats(1.2, 4), st.integers(0, 99))
def test_tiles_join_without_a_seam(height: int, width: int, factor: float, seed: int):
    config = PreprocessConfig(short_side=160, mean=(0, 0, 0), std=(1, 1, 1), scale=255)
    pixels = np.random.default_rng(seed).integers(0, 100, (height, width, 3), dtype=np.uint8)
    page = preprocess_tiles(pixels, config, factor)
    assert page.pixels.shape[:2] == page.network_size == page.content_size
    assert abs(min(page.network_size) - 160 * factor) < 32
    probability = read_tiles(page, _blue, threshold=0.9)
    np.testing.assert_allclose(probability, page.pixels[..., 0] / np.float32(255), atol=1e-5)


def test_blank_tiles_are_left_out():
    pixels = np.full((2000, 1500, 3), 240, np.uint8)
    pixels[100:140, 100:140] = 0
    sizes = []

    def run(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
        sizes.append(tensor.shape)
        return _blue(tensor)

    page = preprocess_tiles(pixels, PreprocessConfig(short_side=256), 4)
    read_tiles(page, run, threshold=0.5)
    assert len(sizes) == 2, "the tile with ink, and one of the whole page"


def test_nothing_is_seen_in_what_counts_as_blank():
    faint = (250 - (255 - SAMPLE) // 85).astype(np.uint8)
    assert np.ptp(faint.reshape(-1, 3), axis=0).max() == 2
    assert load_detector().probability_map(faint).max() < 0.2


def test_a_page_too_large_at_its_working_size_is_refused_by_name():
    with pytest.raises(ImageError, match=r"^mine: at 100 times .* \(choose a smaller --tile\)$"):
        preprocess_tiles(SAMPLE, PreprocessConfig(), 100, name="mine")


def test_blended_probabilities_stay_probabilities():
    config = PreprocessConfig(short_side=160, mean=(0, 0, 0), std=(1, 1, 1), scale=255)
    pixels = np.tile(np.array([255, 0], np.uint8), (600, 450))[..., None].repeat(3, axis=2)  # nothing of it is blank
    page = preprocess_tiles(pixels, config, 3)
    probability = read_tiles(page, lambda tensor: np.ones(tensor.shape[2:], np.float32), threshold=0.3)
    assert 0.9999 < probability.min() <= probability.max() <= 1


# Tall text from coarser sizes


def _map(height: int, width: int, *boxes: tuple[int, int, int, int]) -> npt.NDArray[np.float32]:
    probability = np.zeros((height, width), np.float32)
    for top, bottom, left, right in boxes:
        probability[top:bottom, left:right] = 0.9
    return probability


def test_a_tall_line_in_pieces_is_joined_by_the_coarser_size():
    fine = _map(400, 400, (90, 120, 40, 100), (92, 118, 130, 300), (300, 306, 40, 200))
    _take_tall_kernels(fine, _map(100, 100, (20, 32, 10, 80)), 0.5)
    count, *_ = cv2.connectedComponentsWithStats((fine > 0.5).view(np.uint8))
    assert count - 1 == 2, "the tall line and the small one"


def test_small_lines_that_ran_together_at_the_coarser_size_stay_apart():
    fine = _map(400, 400, (82, 88, 40, 320), (98, 104, 40, 320), (114, 120, 40, 320))
    before = fine.copy()
    _take_tall_kernels(fine, _map(100, 100, (20, 31, 10, 80)), 0.5)
    np.testing.assert_array_equal(fine, before)


def test_a_very_tall_line_of_which_the_finer_size_has_scraps_is_taken_over():
    fine = _map(400, 400, (90, 96, 60, 80), (140, 150, 200, 230))
    _take_tall_kernels(fine, _map(100, 100, (15, 45, 10, 80)), 0.5)
    assert fine[120, 160] == np.float32(0.9)


@pytest.mark.filterwarnings("error")
def test_a_coarser_size_that_is_all_kernel_is_taken_over_like_others():
    fine, scraps = np.full((400, 400), np.float32(0.6)), _map(400, 400, (90, 96, 60, 80))
    for finer in (fine, scraps):
        _take_tall_kernels(finer, np.full((100, 100), np.float32(0.9)), 0.5)
        assert (finer == np.float32(0.9)).all()


# What "auto" decides


def test_pages_no_more_than_twice_the_ordinary_size_are_never_tiled():
    page = cv2.resize(SAMPLE, (1472, 1720))
    assert choose_factor(np.asarray(page, np.uint8), PreprocessConfig()) == 1


@pytest.mark.parametrize("side", [129, 199, 200])
def test_pages_too_small_to_show_lines_are_read_whole(side: int):
    page = np.full((side, 2 * side, 3), 255, np.uint8)
    assert letter_height(page, side) is None
    assert choose_factor(page, PreprocessConfig(short_side=64)) == 1


def test_an_enlarged_page_is_read_whole_and_a_sheet_of_many_pages_in_tiles():
    enlarged = cv2.resize(SAMPLE, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    assert choose_factor(np.asarray(enlarged, np.uint8), PreprocessConfig()) == 1
    sheet = np.tile(SAMPLE, (4, 4, 1))
    assert 2 < choose_factor(sheet, PreprocessConfig()) < 4
    assert choose_factor(np.full_like(sheet, 255), PreprocessConfig()) == 1
    grain = np.random.default_rng(0).integers(240, 250, sheet.shape, dtype=np.uint8)
    assert choose_factor(grain, PreprocessConfig()) == 1


def test_a_sheet_is_read_no_larger_than_memory_allows(monkeypatch: pytest.MonkeyPatch):
    sheet = np.tile(SAMPLE, (4, 4, 1))
    wanted = choose_factor(sheet, PreprocessConfig())
    monkeypatch.setattr("dbcpu.tiling.MAX_WORKING_PIXELS", 2_000_000)
    factor = choose_factor(sheet, PreprocessConfig())
    assert 1.5 <= factor < wanted
    preprocess_tiles(sheet, PreprocessConfig(), factor)
    with pytest.raises(ImageError, match="over the limit"):
        preprocess_tiles(sheet, PreprocessConfig(), factor + 0.2)


def test_numbers_of_numpy_are_numbers():
    load_detector(tile=np.float32(2), threads=np.int64(torch.get_num_threads()))  # type: ignore[arg-type]


@pytest.mark.parametrize("tile", ["on", None, 0.5, float("nan"), float("inf"), -1, 10001, 1e300, 1e308])
def test_what_is_no_tile_is_refused(tile: object):
    with pytest.raises(UsageError, match="tile must be auto, off or a number from 1 to 10000"):
        load_detector(tile=tile)  # type: ignore[arg-type]


# With the network


@pytest.mark.slow
def test_a_line_across_four_tiles_is_one_instance_and_one_is_off():
    words = np.hstack([SAMPLE[68:106, 60:594], SAMPLE[68:106, 60:594], SAMPLE[68:106, 60:594], SAMPLE[68:106, 60:594]])
    page = _pasted((words, 500, 60), height=1000, width=2260)
    detector = load_detector(short_side=320, tile=2.5)
    result = detector.detect(page)
    assert result.settings["tile"] == 2.5
    assert result.settings["network_height"] == 800
    (line,) = result.instances
    assert np.ptp(line.polygon[:, 0]) > 0.97 * words.shape[1]
    assert np.ptp(line.polygon[:, 1]) < 2 * words.shape[0]
    assert load_detector(tile=1).detect(SAMPLE).settings["tile"] == "off"


@pytest.mark.slow
def test_large_and_small_text_of_one_page_are_both_found(tmp_path: Path):
    large = cv2.resize(SAMPLE[60:260], None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    page = _pasted((np.asarray(large, np.uint8), 0, 60), (SAMPLE[:480], 820, 60), height=1300, width=2640)
    path = tmp_path / "page.png"
    cv2.imwrite(str(path), page)
    options = ("--short-side", 192, "--threads", 1)
    lines = {}
    for tile in ("off", "4"):
        code, out, err = run_cli("detect", path, "--tile", tile, *options)
        assert code == 0, err
        tops = [np.min(i["polygon"], axis=0)[1] for i in json.loads(out)["instances"]]
        lines[tile] = [sum(top < 800 for top in tops), sum(top >= 800 for top in tops)]
    assert lines["off"][1] < 5, "rather blots than lines"
    assert lines["4"][0] >= lines["off"][0] >= 4
    assert lines["4"][1] >= 12


def test_an_impossible_tile_is_a_usage_error(tmp_path: Path):
    code, _, err = run_cli("detect", tmp_path / "x.png", "--tile", "none")
    assert code == 2
    assert "auto, off or a number from 1" in err
