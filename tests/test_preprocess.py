from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from helpers import golden_entries
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbcpu.config import PreprocessConfig
from dbcpu.errors import ImageError
from dbcpu.geometry import Size
from dbcpu.preprocess import content_size, preprocess, resize, rounded_targets

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize(
    "entry",
    [e for e in golden_entries("probability_maps.json") if e["variant"] == "resnet18"],
    ids=lambda e: e["key"],
)
def test_the_input_is_that_of_the_original_bit_for_bit(entry: dict[str, Any], synthetic: ModuleType):
    result = preprocess(synthetic.image(entry["image"]), PreprocessConfig(short_side=entry["short_side"]))
    assert list(result.tensor.shape) == entry["input_shape"]
    assert zlib.crc32(result.tensor.numpy().tobytes()) == entry["input_crc32"]


def test_a_square_picture_becomes_a_little_higher_than_wide():
    # The order of the floating-point operations decides: 736 / 328 * 328 / 32 is a hair above 23.
    assert content_size(PreprocessConfig(), Size(328, 328)) == Size(768, 736)


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(1, 2000))
def test_both_sides_are_multiples_of_32_and_the_ratio_is_kept(height: int, width: int, short_side: int):
    size = content_size(PreprocessConfig(short_side=short_side), Size(height, width))
    assert size.height % 32 == 0
    assert size.width % 32 == 0
    target = math.ceil(short_side / 32) * 32
    assert min(size) == target
    ratio = max(height, width) / min(height, width)
    assert max(size) - 32 - 1e-3 <= target * ratio <= max(size) + 1e-3


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(1, 2000), st.integers(1, 2000))
def test_elongated_pictures_get_the_pixels_of_a_sheet_of_paper_down_to_a_short_side(
    height: int, width: int, short_side: int, least: int
):
    elongated = PreprocessConfig(short_side=short_side, elongated_short_side=least)
    size = content_size(elongated, Size(height, width))
    ordinary = content_size(PreprocessConfig(short_side=short_side), Size(height, width))
    ratio = max(height, width) / min(height, width)
    if ratio <= math.sqrt(2) or least >= short_side:
        assert size == ordinary
        return
    short, long = sorted(size)
    assert math.ceil(least / 32) * 32 <= short <= min(ordinary)
    assert long - 32 - 1e-3 <= short * ratio <= long + 1e-3
    if short > math.ceil(least / 32) * 32:
        pixels = short_side**2 * math.sqrt(2)
        assert (short - 32) ** 2 * ratio <= pixels <= (short + 1) ** 2 * ratio


def test_a_receipt_is_made_smaller_than_a_page_but_a_strip_no_smaller_than_a_receipt():
    config = PreprocessConfig(short_side=928, elongated_short_side=736)
    assert content_size(config, Size(1414, 1000)).width == 928
    assert content_size(config, Size(2000, 1000)) == Size(1600, 800)
    assert content_size(config, Size(1000, 9000)).height == 736


@pytest.mark.parametrize(
    ("height", "width", "short"),
    [
        (720, 720, 928),
        (1000, 1300, 1024),
        (3000, 4000, 1056),
        (3300, 3000, 1056),
        (3301, 3000, 928),
        (1080, 1920, 960),  # as many pixels as a sheet
        (1000, 9000, 736),
    ],
)
def test_a_picture_that_is_no_upright_sheet_keeps_more_of_the_pixels_that_it_has(height: int, width: int, short: int):
    config = PreprocessConfig(short_side=928, wide_short_side=1056, elongated_short_side=736)
    assert min(content_size(config, Size(height, width))) == short


def test_the_other_rules_fix_the_height_or_both_sides():
    by_height = PreprocessConfig(resize="height", height=800)
    assert content_size(by_height, Size(400, 600)) == Size(800, 1216)
    assert content_size(by_height, Size(1600, 600)) == Size(800, 320)
    exact = PreprocessConfig(resize="exact", height=736, width=1280)
    assert content_size(exact, Size(99, 33)) == Size(736, 1280)


def test_a_target_that_is_no_multiple_of_32_is_rounded_up_and_told():
    config = PreprocessConfig(short_side=700)
    assert content_size(config, Size(700, 700)).width == 704
    assert rounded_targets(config) == {"short_side": (700, 704)}
    assert rounded_targets(PreprocessConfig()) == {}


@pytest.mark.parametrize("size", [(5, 60000), (20000, 20), (1000, 1), (1, 65535), (40, 30000)])
def test_a_strip_too_long_for_the_network_is_made_to_fit_and_said(
    size: tuple[int, int], warnings_logged: pytest.LogCaptureFixture
):
    prepared = preprocess(np.zeros((*size, 3), np.uint8), PreprocessConfig(), name="strip")
    height, width = prepared.network_size
    assert prepared.tensor.shape == (1, 3, height, width)
    assert height % 32 == width % 32 == 0
    assert height * width <= 4_000_000
    assert (height < width) == (size[0] < size[1])
    assert "strip: " in warnings_logged.text
    assert "so elongated" in warnings_logged.text


def test_a_size_that_would_not_fit_into_memory_is_refused_by_name():
    page = np.zeros((500, 400, 3), np.uint8)
    for config in (PreprocessConfig(short_side=6000), PreprocessConfig(resize="exact", height=9000, width=4000)):
        with pytest.raises(ImageError, match=r"page: a picture of 400x500 would become \d+x\d+ for the network"):
            preprocess(page, config, name="page")


@settings(deadline=None, max_examples=300)
@given(
    st.integers(2, 300), st.integers(32, 300), st.integers(1, 300), st.floats(0, 1), st.integers(1, 20000), st.data()
)
@example(240, 200, 120, 0.5, 5000, None)  # half on both sides, where OpenCV changes to means of four
def test_resizing_in_bands_gives_the_bits_of_one_resize(
    height: int, width: int, new_height: int, share: float, band: int, data: st.DataObject | None
):
    seed = 0 if data is None else data.draw(st.integers(0, 1000))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = Size(new_height, max(32, round(share * width)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dbcpu.preprocess._BANDED_PIXELS", 0)
        patched.setattr("dbcpu.preprocess._BAND_PIXELS", band)
        in_bands = resize(pixels, size, PreprocessConfig())
    at_once = cv2.resize(pixels.astype(np.float32), (size.width, size.height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(in_bands, at_once)


@pytest.mark.parametrize(("height", "width"), [(2340, 1655), (1001, 1001), (1472, 1472)])
def test_large_pages_are_resized_in_bands_with_the_bits_of_one_resize(height: int, width: int):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = content_size(PreprocessConfig(), Size(height, width))
    at_once = cv2.resize(pixels.astype(np.float32), (size.width, size.height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize(pixels, size, PreprocessConfig()), at_once)


def test_channels_mean_and_deviation_are_those_of_the_configuration():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:] = (10, 20, 30)
    config = PreprocessConfig(short_side=32, channels="rgb", mean=(30, 0, 0), std=(1, 10, 5), scale=2)
    tensor = preprocess(pixels, config).tensor
    np.testing.assert_array_equal(tensor[0, :, 0, 0].numpy(), np.float32([0, 1, 1]))


def test_fit_keeps_the_ratio_and_pads_with_zeros_after_normalising():
    config = PreprocessConfig(resize="fit", short_side=64, long_side=100, mean=(255, 255, 255))
    result = preprocess(np.zeros((50, 100, 3), np.uint8), config)
    assert (result.content_size, result.network_size) == (Size(50, 100), Size(64, 128))
    inside = result.tensor[0, :, :50, :100]
    assert (inside == -1).all()
    assert result.tensor.sum() == inside.sum()
    assert content_size(config, Size(2000, 1000)) == Size(100, 50)
    assert content_size(PreprocessConfig(resize="fit", short_side=64, long_side=1000), Size(400, 1000)) == Size(64, 160)


def test_rounding_to_the_nearest_multiple_rounds_both_sides():
    config = PreprocessConfig(short_side=1000, rounding="nearest")
    assert content_size(config, Size(1000, 1100)) == Size(992, 1088)
    assert rounded_targets(config) == {}


def test_pixels_may_be_resized_as_whole_grey_levels():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    tensor = preprocess(pixels, PreprocessConfig(short_side=64, resized_as="uint8", mean=(0, 0, 0), scale=1)).tensor
    assert (tensor == tensor.round()).all()
