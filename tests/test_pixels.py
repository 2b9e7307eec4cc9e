from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures import cmyk_profile, encode, page, png, tiff
from PIL import Image, ImageCms

from dbcpu.errors import ImageError
from dbcpu.image import read_image, source_from_array
from dbcpu.pixels import bgr_from_picture, bgr_from_samples, turn_back, turn_upright

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)


def _read(content: bytes) -> npt.NDArray[np.uint8]:
    (only,) = read_image(content)
    return only.pixels_bgr


def _greys(pixels: npt.NDArray[np.uint8]) -> list[int]:
    assert (pixels == pixels[..., :1]).all(), "not grey"
    return pixels[..., 0].ravel().tolist()


def _bgr(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return rgb[..., ::-1]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_png_without_alpha_has_the_pixels_that_opencv_reads(mode: str):
    content = encode(Image.fromarray(page()).convert(mode), "PNG")
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(_read(content), expected)


def test_a_page_of_many_bands_and_one_wider_than_a_band_come_out_whole():
    for height, width in ((3000, 200), (2, 140_000), (1, 1)):
        rgb = page(height, width)
        np.testing.assert_array_equal(bgr_from_picture(Image.fromarray(rgb)), _bgr(rgb))
        grey = rgb[..., 0].astype(np.uint16)
        grey[0, 0], grey[-1, -1] = (0, 255) if grey.size > 1 else (0, 0)
        np.testing.assert_array_equal(bgr_from_samples(grey)[..., 2], grey)


# Transparency


def _black_text(shape: tuple[int, int] = (20, 30)) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Colours that are black everywhere, and an alpha that alone shows a text."""
    alpha = np.zeros(shape, np.uint8)
    alpha[5:15, 10:20] = 255
    alpha[5:15, 20] = 128
    return np.zeros((*shape, 3), np.uint8), alpha


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "TGA", "AVIF"])
def test_black_text_on_transparency_is_black_on_white(format_: str):
    colours, alpha = _black_text()
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {"quality": 100} if format_ == "AVIF" else {}
    content = encode(Image.fromarray(np.dstack([colours, alpha]), "RGBA"), format_, **options)
    off = np.abs(_read(content)[..., 0].astype(int) - (255 - alpha))
    assert off.max() <= (2 if format_ == "AVIF" else 0)


def test_premultiplied_grey_is_composed_on_white():
    grey = np.array([[[0, 0], [0, 128], [64, 128], [0, 255]]], np.uint8)
    assert _greys(_read(tiff(grey, {262: 1, 338: 1}))) == [255, 127, 191, 0]


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBa"])
def test_every_mode_with_alpha_is_composed_on_white(mode: str):
    colours, alpha = _black_text()
    rgba = Image.fromarray(np.dstack([colours, alpha]), "RGBA")
    assert _greys(bgr_from_picture(rgba.convert(mode))) == (255 - alpha).ravel().tolist()


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("1", 1), ("RGB", (7, 7, 7))])
def test_the_transparent_value_of_a_png_becomes_white(mode: str, key: object):
    picture = Image.new(mode, (4, 1), 0 if mode != "RGB" else BLACK)
    picture.putpixel((2, 0), key)
    assert _greys(_read(encode(picture, "PNG", transparency=key))) == [0, 0, 255, 0]


def test_the_half_transparent_entry_of_a_palette_is_composed_on_white():
    picture = Image.new("P", (3, 1))
    picture.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0])
    picture.putdata([0, 1, 2])
    assert _greys(_read(encode(picture, "PNG", transparency=bytes([255, 128, 0])))) == [0, 127, 255]


def test_the_transparent_value_of_16_bit_pictures_becomes_white_and_does_not_count_for_their_range():
    grey = np.array([[0, 100, 60000, 51]], np.uint16)
    assert _greys(_read(png(grey, chunks=[(b"tRNS", b"\xea\x60")]))) == [0, 255, 255, 130]
    colours = np.repeat(grey[..., None], 3, axis=2)
    assert _greys(_read(png(colours, chunks=[(b"tRNS", b"\xea\x60" * 3)]))) == [0, 255, 255, 130]


def test_black_text_on_16_bit_transparency_is_black_on_white():
    colours, alpha = _black_text()
    rgba = np.dstack([colours, alpha]).astype(np.uint16) * 257
    for content in (png(rgba), tiff(rgba, {338: 2}), tiff(rgba, {338: 1}), png(rgba[..., 2:])):
        assert _greys(_read(content)) == (255 - alpha).ravel().tolist()


def test_dark_inks_of_a_16_bit_drawing_stay_dark():
    drawing = np.array([[[0, 0, 0, 65535], [9000, 9000, 9000, 65535], [0, 0, 0, 30000]]], np.uint16)
    assert _greys(_read(png(drawing)))[:2] == [0, 35]


def test_alpha_that_hides_nothing_does_not_keep_a_12_bit_scan_dark():
    scan = np.dstack([np.array([[0, 4095]], np.uint16)] * 3 + [np.full((1, 2), 65535, np.uint16)])
    assert _greys(_read(png(scan))) == [0, 255]


@pytest.mark.parametrize("format_", ["PNG", "TGA", "TIFF", "WEBP"])
def test_an_alpha_that_is_0_everywhere_is_ignored(format_: str):
    rgba = Image.fromarray(np.dstack([page(), np.zeros((40, 60), np.uint8)]), "RGBA")
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    np.testing.assert_array_equal(_read(encode(rgba, format_, **options)), _bgr(page()))


def test_an_alpha_of_0_is_ignored_in_other_modes_and_depths():
    grey = Image.merge("LA", [Image.fromarray(page()[..., 0]), Image.new("L", (60, 40))])
    assert _greys(_read(encode(grey, "PNG"))) == page()[..., 0].ravel().tolist()
    deep = np.dstack([page().astype(np.uint16) * 257, np.zeros((40, 60), np.uint16)])
    for content in (png(deep), tiff(deep, {338: 2})):
        np.testing.assert_array_equal(_read(content), _bgr(page()))
    assert (source_from_array(np.zeros((1, 1, 4), np.uint8)).pixels_bgr == 0).all()


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_a_frame_of_an_animation_may_be_empty(format_: str):
    empty, full = Image.new("RGBA", (60, 40)), Image.new("RGBA", (60, 40), "red")
    content = encode(empty, format_, save_all=True, append_images=[full], lossless=True)
    assert _greys(next(read_image(content)).pixels_bgr) == [255] * 2400


def test_premultiplied_colours_that_are_transparent_everywhere_are_white():
    assert _greys(bgr_from_picture(Image.new("RGBa", (1, 1)))) == [255]
    assert _greys(_read(tiff(np.zeros((1, 1, 4), np.uint16), {338: 1}))) == [255]


# Depth


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_grey_in_either_byte_order_is_scaled_by_its_range(byte_order: str):
    low = np.array([[20, 84, 52]], np.uint16)  # the upper 8 bits are all zero
    assert _greys(_read(tiff(low, byte_order=byte_order))) == [0, 255, 128]
    assert _greys(_read(png(low))) == [0, 255, 128]


def _ppm(samples: npt.NDArray[np.uint16], largest: int = 65535) -> bytes:
    return b"P6 %d %d %d\n" % (*samples.shape[1::-1], largest) + samples.astype(">u2").tobytes()


def _jp2(samples: npt.NDArray[np.uint16]) -> bytes:
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    return cv2.imencode(".jp2", np.ascontiguousarray(samples[..., ::-1]), lossless)[1].tobytes()


@pytest.mark.parametrize("write", [png, tiff, _ppm])
def test_colours_of_12_bits_in_16_are_scaled_together(write: Callable[[npt.NDArray[np.uint16]], bytes]):
    scan = np.array([[[0, 0, 0], [4095, 2048, 1024]]], np.uint16)
    np.testing.assert_array_equal(_read(write(scan)), [[[0, 0, 0], [64, 128, 255]]])


def test_a_jpeg_2000_of_12_bits_in_16_is_scaled_as_one_of_16():
    np.testing.assert_array_equal(_read(_jp2(page().astype(np.uint16) * 16)), _bgr(page()))


def test_a_ppm_of_12_bits_is_scaled_as_one_of_16():
    scan = np.array([[[0, 0, 0], [4095, 2048, 1024]]], np.uint16)
    np.testing.assert_array_equal(_read(_ppm(scan, 4095)), _read(_ppm(scan)))


@pytest.mark.parametrize("write", [_ppm, _jp2])
def test_deep_colours_that_end_too_early_are_refused(write: Callable[[npt.NDArray[np.uint16]], bytes]):
    content = write(page().astype(np.uint16) * 257)
    with pytest.raises(ImageError):
        _read(content[:-100])


def test_the_unnamed_fourth_sample_of_a_16_bit_tiff_is_no_alpha():
    scan = np.array([[[0, 0, 0, 0], [4095, 2048, 1024, 0]]], np.uint16)
    np.testing.assert_array_equal(_read(tiff(scan, {338: 0})), [[[0, 0, 0], [64, 128, 255]]])


def _in_planes(rgb: npt.NDArray[np.generic]) -> bytes:
    height, width, _ = rgb.shape
    planes = rgb.transpose(2, 0, 1).reshape(-1, width)
    size, kind = planes.nbytes // 3, {"u": 1, "f": 3}[rgb.dtype.kind]
    entries = {257: height, 258: (rgb.dtype.itemsize * 8,) * 3, 262: 2, 273: (0, size, 2 * size), 277: 3, 278: height}
    return tiff(planes, {**entries, 279: (size,) * 3, 284: 2, 339: (kind,) * 3})


def test_16_bit_colours_in_planes_keep_their_upper_8_bits():
    content = _in_planes(page().astype(np.uint16) * 257)
    np.testing.assert_array_equal(_read(content), _bgr(page()))


def test_8_bit_colours_in_planes_are_read_and_float_ones_refused_by_name():
    np.testing.assert_array_equal(_read(_in_planes(page())), _bgr(page()))
    with pytest.raises(ImageError, match="cannot be decoded"):
        _read(_in_planes(page().astype(np.float32)))


def test_unsigned_integers_of_32_bits_keep_their_order():
    assert _greys(_read(tiff(np.array([[0, 4_000_000_000, 2_000_000_000]], np.uint32)))) == [0, 255, 128]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_signed_and_float_grey_is_scaled_by_its_range(dtype: type):
    assert _greys(_read(tiff(np.array([[-1000, 1000, 0]], dtype)))) == [0, 255, 128]


def test_float_colours_are_scaled_together():
    colours = np.array([[[0, 0, 0], [0.5, 0.25, 0.125]]], np.float32)
    np.testing.assert_array_equal(_read(tiff(colours)), [[[0, 0, 0], [64, 128, 255]]])


def test_not_a_number_and_infinities_are_white_and_do_not_count_for_the_range():
    odd = np.array([[np.nan, 2, 4, np.inf, -np.inf]], np.float32)
    assert _greys(_read(tiff(odd))) == [255, 0, 255, 255, 255]


def test_a_picture_of_one_value_is_scaled_by_its_type():
    assert _greys(_read(tiff(np.full((1, 2), 65535, np.uint16)))) == [255, 255]
    assert _greys(_read(tiff(np.zeros((1, 2), np.uint16)))) == [0, 0]
    assert _greys(_read(tiff(np.full((1, 2), 0.5, np.float32)))) == [128, 128]
    assert _greys(_read(tiff(np.full((1, 2), np.nan, np.float32)))) == [255, 255]


def test_a_16_bit_tiff_where_zero_is_white_is_inverted():
    assert _greys(_read(tiff(np.array([[0, 4095]], np.uint16), {262: 0}))) == [255, 0]


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(
    "type_", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64, np.uint64]
)
def test_zero_is_white_where_a_tiff_says_so_whatever_its_samples(type_: type[np.generic], byte_order: str):
    row = np.array([[0, 255] * 4], type_)
    assert _greys(_read(tiff(row, {262: 1}, byte_order=byte_order))) == [0, 255] * 4
    assert _greys(_read(tiff(row, {262: 0}, byte_order=byte_order))) == [255, 0] * 4


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64]),
        st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)),
    )
)
@example(np.array([[-1e308, 1.7e308]]))
@example(np.array([[0, 5e-324]]))
@example(np.array([[-1e308, np.inf, 1e-300, 1.7e308]]))
def test_scaling_keeps_the_order_of_values_and_uses_the_whole_range(samples: npt.NDArray[np.generic]):
    pixels = bgr_from_samples(samples)
    assert pixels.shape == (*samples.shape[:2], 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    values = np.broadcast_to(samples.reshape(*samples.shape[:2], -1), pixels.shape)
    finite = np.isfinite(values)
    assert (pixels[~finite] == 255).all()
    ordered = pixels[finite][np.argsort(values[finite], kind="stable")]
    assert (np.diff(ordered.astype(int)) >= 0).all()
    if finite.any() and samples.dtype != np.uint8 and values[finite].min() < values[finite].max():
        assert (ordered[0], ordered[-1]) == (0, 255)


# Colour models


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_takes_the_plain_formula(format_: str):
    picture = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (8, 0, 16, 16))
    picture.paste((0, 0, 0, 0), (0, 8, 8, 16))
    options = {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}
    pixels = _read(encode(picture, format_, **options))
    for (row, column), expected in {(2, 2): (255, 255, 0), (2, 12): BLACK, (12, 2): WHITE}.items():
        np.testing.assert_allclose(pixels[row, column], expected, atol=3)


def test_cmyk_with_a_profile_goes_through_it():
    profile = cmyk_profile(paper=(255, 128, 128), inks=(128, 255, 128))  # every ink is a red here
    picture = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (255, 0, 0, 0))
    paper, ink = _read(encode(picture, "TIFF", icc_profile=profile))[0].tolist()
    assert paper == list(WHITE)
    assert ink[2] > ink[0]
    assert ink[2] > ink[1]


def test_a_profile_that_is_none_or_of_another_colour_space_is_passed_over():
    picture = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (b"not a profile", srgb):
        np.testing.assert_array_equal(_read(encode(picture, "TIFF", icc_profile=profile))[0, 0], (255, 255, 0))


def test_an_rgb_profile_leaves_the_values_alone():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encode(Image.fromarray(page()), "PNG", icc_profile=srgb)
    np.testing.assert_array_equal(_read(content), _bgr(page()))


def test_lab_and_ycbcr_become_rgb():
    rgb = page()
    lab = ImageCms.profileToProfile(
        Image.fromarray(rgb), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for content in (encode(lab, "TIFF"), encode(Image.fromarray(rgb).convert("YCbCr"), "TIFF")):
        assert np.abs(_read(content).astype(int) - _bgr(rgb)).mean() < 2


# Orientation


@pytest.mark.parametrize("orientation", range(10))
def test_turning_back_undoes_turning_upright(orientation: int):
    turned = turn_upright(page(), orientation)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turn_back(turned, orientation), page())


def test_turning_changes_nothing_in_the_picture_given():
    for orientation in range(9):
        pixels = page()
        turn_upright(pixels, orientation)
        np.testing.assert_array_equal(pixels, page())


def test_a_palette_picture_in_memory_is_read_as_from_a_file():
    picture = Image.fromarray(page()).quantize(16)
    expected = _bgr(np.asarray(Image.open(io.BytesIO(encode(picture, "PNG"))).convert("RGB")))
    np.testing.assert_array_equal(bgr_from_picture(picture), expected)
