from __future__ import annotations

import errno
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pictures import encode, page, png, tiff
from PIL import Image, TiffImagePlugin

from dbcpu.errors import ImageError
from dbcpu.image import SourceImage, read_image, source_from_array

ROOT = Path(__file__).parents[1]
RGB = page()
BGR = np.ascontiguousarray(RGB[..., ::-1])
PICTURE = Image.fromarray(RGB)


def _read(source: str | Path | bytes, **options: object) -> npt.NDArray[np.uint8]:
    (only,) = read_image(source, **options)  # type: ignore[arg-type]
    return only.pixels_bgr


def _opencv(content: bytes, flags: int = cv2.IMREAD_COLOR) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), flags), np.uint8)


# The pixels


@pytest.mark.parametrize(
    "options",
    [{"quality": 75}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"subsampling": 1}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_has_the_pixels_that_opencv_reads(mode: str, options: dict[str, object]):
    content = encode(Image.fromarray(page(123, 211)).convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(_read(content), _opencv(content))


def test_real_pages_have_the_pixels_that_opencv_reads(shared: Path):
    paths = sorted(shared.glob("data/test/*/images/*"))[::7]
    assert len(paths) > 10
    for path in paths:
        np.testing.assert_array_equal(_read(path), cv2.imread(str(path), cv2.IMREAD_COLOR), err_msg=path.name)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {"irreversible": False}),
        ("PPM", {}),
        ("TGA", {"compression": "tga_rle"}),
    ],
    ids=str,
)
def test_lossless_formats_keep_every_pixel(format_: str, options: dict[str, object]):
    np.testing.assert_array_equal(_read(encode(PICTURE, format_, **options)), BGR)


def test_fax_pages_and_avif_are_read():
    line = PICTURE.convert("1", dither=Image.Dither.NONE)
    expected = np.repeat(np.asarray(line, np.uint8)[..., None] * np.uint8(255), 3, axis=2)
    np.testing.assert_array_equal(_read(encode(line, "TIFF", compression="group4")), expected)
    assert np.abs(_read(encode(PICTURE, "AVIF", quality=100)).astype(int) - BGR).mean() < 4


# Orientation

# What a camera held this way stores of an upright picture, in the words of the EXIF standard: where the stored row 0
# and column 0 lie in the upright picture.
STORED: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda upright: upright[::-1].transpose(1, 0, 2),  # left, bottom
}


def _stored(orientation: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_honoured_or_ignored(format_: str, orientation: int):
    options = {"lossless": True} if format_ == "WEBP" else {}
    stored = _stored(orientation)
    content = encode(stored, format_, exif=_exif(orientation), **options)
    np.testing.assert_array_equal(_read(content), BGR)
    np.testing.assert_array_equal(_read(content, ignore_exif=True), np.asarray(stored)[..., ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_has_the_pixels_that_opencv_reads(orientation: int):
    content = encode(_stored(orientation), "JPEG", exif=_exif(orientation))
    np.testing.assert_array_equal(_read(content), _opencv(content))
    stored = _opencv(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    np.testing.assert_array_equal(_read(content, ignore_exif=True), stored)


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_orientation_of_deep_tiffs_is_honoured_or_ignored(dtype: type, orientation: int):
    stored = np.asarray(_stored(orientation)).astype(dtype)
    content = tiff(stored, {274: orientation})
    np.testing.assert_array_equal(_read(content), BGR)
    np.testing.assert_array_equal(_read(content, ignore_exif=True), stored[..., ::-1])


def test_damaged_or_impossible_orientation_leaves_the_picture_as_stored():
    for exif in (b"Exif\0\0garbage", _exif(9).tobytes(), _exif(0).tobytes()):
        np.testing.assert_array_equal(_read(encode(PICTURE, "PNG", exif=exif)), BGR)


# Pages


def _shades(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (30 + i, 20), (i * 40, 0, 0)) for i in range(count)]


def test_every_page_of_a_tiff_comes_with_its_number():
    first, *others = _shades(3)
    pages = list(read_image(encode(first, "TIFF", save_all=True, append_images=others), name="scan.tif"))
    assert [(p.name, p.page, p.is_last, p.pixels_bgr.shape[1], p.pixels_bgr[0, 0, 2]) for p in pages] == [
        ("scan.tif", 1, False, 30, 0),
        ("scan.tif", 2, False, 31, 40),
        ("scan.tif", 3, True, 32, 80),
    ]


def test_pages_of_different_depths_in_one_tiff_are_each_scaled_by_their_range():
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream) as writer:
        for scale in (1, 16, 257):
            writer.write(tiff(RGB.astype(np.uint16) * scale))
            writer.newFrame()
    pages = list(read_image(stream.getvalue()))
    assert len(pages) == 3
    for source in pages:
        np.testing.assert_array_equal(source.pixels_bgr, BGR)


def test_pages_that_pillow_can_open_and_those_it_cannot_stand_in_one_tiff():
    real = (BGR / np.float32(255)).astype(np.float32)  # colours in float, which Pillow has no mode for
    for pages in ([BGR, real, BGR], [real, BGR]):
        content = cv2.imencodemulti(".tiff", pages)[1].tobytes()
        read = list(read_image(content, name="mixed"))
        assert [(p.page, p.is_last) for p in read] == [(n, n == len(pages)) for n in range(1, len(pages) + 1)]
        assert all(np.abs(p.pixels_bgr.astype(int) - BGR).max() <= 1 for p in read)


def test_pages_come_one_at_a_time():
    first, *others = _shades(3)
    content = encode(first, "TIFF", save_all=True, append_images=others)
    stream = io.BytesIO(content)
    pages = read_image(stream)
    assert next(pages).page == 1
    pages.close()  # type: ignore[attr-defined]
    assert not stream.closed, "the stream is the caller's"


def test_thumbnails_in_a_tiff_are_no_pages():
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream) as writer:
        for subfile_type, width in ((0, 60), (1, 6), (0, 61), (4, 7), (1, 5)):
            writer.write(tiff(page(40, width), {254: subfile_type}))
            writer.newFrame()
    pages = list(read_image(stream.getvalue()))
    assert [(p.page, p.is_last, p.pixels_bgr.shape[1]) for p in pages] == [(1, False, 60), (2, True, 61)]


@pytest.mark.parametrize("format_", ["TIFF", "GIF", "PNG", "WEBP", "AVIF"])
def test_reading_may_begin_at_any_page(format_: str):
    first, *others = (Image.fromarray(np.roll(page(40, 60), 7 * i, axis=1)) for i in range(4))
    content = encode(first, format_, save_all=True, append_images=others)
    pages = list(read_image(content))
    for start in (1, 2, 4):
        later = list(read_image(content, first_page=start))
        assert [(p.page, p.is_last) for p in later] == [(n, n == 4) for n in range(start, 5)]
        for source, expected in zip(later, pages[start - 1 :], strict=True):
            np.testing.assert_array_equal(source.pixels_bgr, expected.pixels_bgr)
    assert str(_error(content, first_page=5)) == "bytes, page 5: the file ends with page 4"


def test_pages_passed_over_are_not_decoded_and_thumbnails_not_counted():
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream) as writer:
        for subfile_type, width, strip in ((0, 60, {273: 10**9}), (1, 6, {}), (0, 61, {})):
            writer.write(tiff(page(40, width), {254: subfile_type, **strip}))
            writer.newFrame()
    content = stream.getvalue()
    assert "page 1" not in str(_error(content))
    (source,) = read_image(content, first_page=2)
    assert (source.page, source.is_last, source.pixels_bgr.shape[1]) == (2, True, 61)


def test_pages_that_only_opencv_decodes_may_be_passed_over_too():
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream) as writer:
        for width in (30, 31, 32):
            writer.write(tiff(page(20, width).astype(np.float32)))
            writer.newFrame()
    content = stream.getvalue()
    assert [(p.page, p.pixels_bgr.shape[1]) for p in read_image(content, first_page=3)] == [(3, 32)]
    assert str(_error(content, first_page=4)) == "bytes, page 4: the file ends with page 3"


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_of_an_animation_are_complete_pictures(format_: str):
    frames = []
    for i in range(3):  # each frame changes one square, so that encoders store little more than that
        frame = Image.new("RGB", (48, 32), "white") if i == 0 else frames[-1].copy()
        frame.paste(((255, 0, 0), (0, 128, 0), (0, 0, 255))[i], (16 * i, 8, 16 * i + 8, 16))
        frames.append(frame)
    options: dict[str, object] = {"lossless": True} if format_ == "WEBP" else {}
    options = {"quality": 100, "subsampling": "4:4:4"} if format_ == "AVIF" else options
    content = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    pages = list(read_image(content))
    assert [p.page for p in pages] == [1, 2, 3]
    for source, frame in zip(pages, frames, strict=True):
        off = np.abs(source.pixels_bgr.astype(int) - np.asarray(frame)[..., ::-1])
        assert off.max() <= (8 if format_ == "AVIF" else 0)


def test_of_a_multi_picture_jpeg_only_the_first_is_a_page():
    content = encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE.resize((20, 20))])
    np.testing.assert_array_equal(_read(content), _opencv(content))


@pytest.mark.parametrize("format_", ["TIFF", "GIF", "PNG"])  # WebP and AVIF are checked as a whole before any page
def test_good_pages_come_before_the_error_about_a_broken_one(format_: str):
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    first, *others = (Image.fromarray(frame) for frame in noise)
    content = encode(first, format_, save_all=True, append_images=others)
    pages = read_image(content[: len(content) * 5 // 6], name="cut")
    read: list[SourceImage] = []
    with pytest.raises(ImageError, match=r"^cut, page 3: "):
        read.extend(pages)
    assert [p.page for p in read] == [1, 2]
    assert not read[-1].is_last


# What is given


def test_a_path_of_any_kind_a_stream_and_bytes_give_the_same(tmp_path: Path):
    content = encode(PICTURE, "PNG")
    names = ["two words.png", "ünïcode 漢字 #%?.png", "no_extension", "a_jpeg.jpg", "-", os.fsdecode(b"\xff\xfe.png")]
    for name in names:
        path = tmp_path / name
        try:
            path.write_bytes(content)
        except OSError:
            continue  # this file system has no such names
        for given_path in (path, str(path)):
            (source,) = read_image(given_path)
            assert source.name == str(path)
            np.testing.assert_array_equal(source.pixels_bgr, BGR)
    with (tmp_path / names[0]).open("rb") as stream:
        stream.read(5)
        (source,) = read_image(stream, name="mine")
        assert source.name == "mine"
        np.testing.assert_array_equal(source.pixels_bgr, BGR)


def test_a_pipe_is_read_to_its_end():
    content = encode(PICTURE, "PNG")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as sink:
        sink.write(content)
    with os.fdopen(reading, "rb") as stream:
        (source,) = read_image(stream, name="-")
    np.testing.assert_array_equal(source.pixels_bgr, BGR)


def test_an_array_becomes_a_source():
    assert source_from_array(BGR).pixels_bgr is BGR
    assert source_from_array(BGR, "mine").name == "mine"
    np.testing.assert_array_equal(source_from_array(BGR[..., 0]).pixels_bgr, np.repeat(BGR[..., :1], 3, axis=2))
    reversed_ = source_from_array(BGR[:, ::-1]).pixels_bgr
    np.testing.assert_array_equal(reversed_, BGR[:, ::-1])
    assert reversed_.flags.c_contiguous
    half = np.dstack([BGR, np.full(BGR.shape[:2], 51, np.uint8)])
    np.testing.assert_allclose(source_from_array(half).pixels_bgr, BGR * 0.2 + 255 * 0.8, atol=0.51)


@pytest.mark.parametrize(
    "array",
    [BGR.astype(np.float32), BGR[None], BGR[..., :2], BGR[0, 0], np.empty((0, 5, 3), np.uint8), "text", None],
    ids=["float", "batch", "two channels", "pixel", "empty", "text", "none"],
)
def test_another_array_is_refused_with_its_type_and_shape(array: object):
    with pytest.raises(ImageError, match=r"^mine: .*shape \("):
        source_from_array(array, "mine")  # type: ignore[arg-type]


# What cannot be read


def _error(source: str | Path | bytes, **options: object) -> ImageError:
    with pytest.raises(ImageError) as caught:
        list(read_image(source, **options))  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 5
    return caught.value


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path):
    missing = tmp_path / "missing.jpg"
    assert str(_error(missing)) == f"{missing}: no such file"
    assert "a folder" in str(_error(tmp_path))
    assert "null" in str(_error("a\0b"))
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert str(_error(empty)) == f"{empty}: the file is empty"
    assert "is empty" in str(_error(b"", name="-"))
    for text in (b"<html>not a picture</html>", b"x", bytes(100)):
        assert str(_error(text, name="text.jpg")).startswith("text.jpg: not a picture of a known format")


@pytest.mark.skipif(os.name == "nt", reason="the words are those of POSIX")
def test_what_the_system_refuses_to_open_is_not_called_damaged(tmp_path: Path):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert str(_error(loop)) == f"{loop}: cannot be read: {os.strerror(errno.ELOOP)}"
    long = tmp_path / ("a" * 300)
    assert str(_error(long)) == f"{long}: cannot be read: {os.strerror(errno.ENAMETOOLONG)}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "secret.png"
    path.write_bytes(encode(PICTURE, "PNG"))
    path.chmod(0)
    assert "permission denied" in str(_error(path))


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "WEBP", "JPEG2000", "TGA", "PPM", "GIF"])
def test_a_truncated_file_is_refused(format_: str, share: float):
    content = encode(Image.fromarray(page(150, 200)), format_)
    message = str(_error(content[: int(len(content) * share)]))
    if format_ in ("JPEG", "PNG"):
        assert "truncated: the file ends before the picture does" in message


def test_a_jpeg_whose_data_are_too_few_for_its_size_is_refused_though_it_has_an_end():
    content = bytearray(encode(PICTURE, "JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", 20000, 20000)
    started = time.perf_counter()
    assert "truncated" in str(_error(bytes(content)))
    assert time.perf_counter() - started < 1


def _claiming(format_: str, width: int, height: int) -> bytes:
    content = bytearray(encode(PICTURE.quantize(8) if format_ == "GIF" else PICTURE, format_))
    where, layout = {
        "PNG": (16, ">II"),
        "BMP": (18, "<ii"),
        "GIF": (6, "<HH"),
        "TGA": (12, "<HH"),
        "JPEG": (content.find(b"\xff\xc0") + 5, ">HH"),
    }[format_]
    sides = (height, width) if format_ == "JPEG" else (width, height)
    struct.pack_into(layout, content, where, *sides)
    if format_ == "PNG":
        return png(np.zeros((1, 1), np.uint8)).replace(struct.pack(">II", 1, 1), bytes(content[16:24]))
    return bytes(content)


@pytest.mark.parametrize("format_", ["BMP", "GIF", "TGA", "JPEG"])
def test_more_pixels_than_the_limit_are_refused_by_the_header(format_: str):
    started = time.perf_counter()
    message = str(_error(_claiming(format_, 60000, 50000)))
    assert message == (
        "bytes: 60000 x 50000 pixels are more than the limit of 500000000 "
        "(raise max_pixels if the picture can be trusted)"
    )
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "JPEG", "GIF", "WEBP"])
def test_the_limit_on_pixels_holds_to_the_pixel(format_: str):
    content = encode(PICTURE, format_)
    assert _read(content, max_pixels=40 * 60).shape == (40, 60, 3)
    assert "60 x 40 pixels" in str(_error(content, max_pixels=40 * 60 - 1))


def test_the_limit_holds_for_what_opencv_decodes_and_for_later_pages():
    deep = tiff(RGB.astype(np.float32))
    assert "60 x 40 pixels" in str(_error(deep, max_pixels=2399))
    two = encode(PICTURE, "TIFF", save_all=True, append_images=[PICTURE.resize((100, 100))])
    assert str(_error(two, max_pixels=2400, name="two")).startswith("two, page 2: 100 x 100 pixels")


def test_a_broken_text_or_profile_in_a_png_makes_no_page_unreadable():
    bloated = b"key\0\0" + b"\x78\x9c" + b"\0" * 10
    for chunk in ((b"zTXt", bloated), (b"iCCP", b"name\0\x07broken")):
        np.testing.assert_array_equal(_read(png(RGB, chunks=[chunk])), BGR)


def test_a_chunk_that_claims_gigabytes_takes_no_memory():
    claiming = bytearray(png(RGB.astype(np.uint16) * 257))
    claiming[claiming.index(b"IDAT") - 4] = 0xFF  # OpenCV would allocate what the chunk claims
    started = time.perf_counter()
    np.testing.assert_array_equal(_read(bytes(claiming)), BGR)
    assert time.perf_counter() - started < 1


# Manners


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "GIF"])
def test_pillows_own_limit_neither_stops_nor_warns_and_stands_afterwards(format_: str, monkeypatch: pytest.MonkeyPatch):
    content = encode(PICTURE, format_)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _read(content).shape == BGR.shape
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pictures_read_in_many_threads_come_out_right_and_leave_pillows_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    contents = [encode(PICTURE, "PNG"), encode(PICTURE, "TIFF"), tiff(RGB.astype(np.uint16)), b"\xff\xd8\xff broken"]
    right: list[bool] = []

    def work() -> None:
        for content in contents * 5:
            try:
                right.append(np.array_equal(_read(content), BGR))
            except ImageError:
                right.append(content is contents[-1])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80
    assert Image.MAX_IMAGE_PIXELS == 100


def test_nothing_is_printed_over_odd_files(tmp_path: Path):
    odd_tag = tiff(RGB, {42112: "x" * 100})
    files = {
        "deep_with_a_broken_profile": png(RGB.astype(np.uint16), chunks=[(b"iCCP", b"name\0\x07broken")]),
        "grey_with_a_broken_profile": png(RGB[..., 0], chunks=[(b"iCCP", b"name\0\x07broken")]),
        "tag_beyond_the_end": odd_tag[: odd_tag.index(b"xxxx") + 10],
        "cut_float": tiff(RGB.astype(np.float32))[:-100],
        "cut_deep": tiff(RGB.astype(np.uint16))[:-100],
        "garbage_in_jpeg": encode(PICTURE, "JPEG").replace(b"\xff\xda", b"\x12\x34\x56\xff\xda"),
        "too_many_samples": tiff(RGB, {277: 65535}),
        "bad_exif": encode(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    code = (
        "import sys\nfrom dbcpu.errors import ImageError\nfrom dbcpu.image import read_image\n"
        "for path in sys.argv[1:]:\n    try:\n        list(read_image(path))\n    except ImageError:\n        pass\n"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# Anything at all

_SMALL = Image.fromarray(page(9, 11))
_FILES = [
    *(encode(_SMALL, f) for f in ("JPEG", "PNG", "BMP", "WEBP", "JPEG2000", "PPM", "TGA", "AVIF", "TIFF")),
    *(encode(_SMALL, f, save_all=True, append_images=[_SMALL.rotate(90)]) for f in ("GIF", "PNG", "WEBP", "TIFF")),
    encode(_SMALL, "TIFF", compression="tiff_lzw"),
    encode(_SMALL.convert("CMYK"), "JPEG"),
    png(page(9, 11).astype(np.uint16)),
    tiff(page(9, 11).astype(np.uint16)),
    tiff(page(9, 11).astype(np.float32)),
    tiff(page(9, 11)[..., 0].astype(np.int32)),
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # pytest forgets the filter that the module sets
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(_FILES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
@example(b"\0\0\0\x0cjP  \xff\x4f\xff\x51", [], 1)
@example(b"II*\0\x08\0\0\0", [], 1)
def test_a_damaged_file_gives_pages_or_an_image_error_and_nothing_else(
    content: bytes, changes: list[tuple[float, int]], share: float
):
    damaged = bytearray(content)
    for where, value in changes:
        damaged[int(where * len(damaged))] = value
    try:
        pages = list(read_image(bytes(damaged[: round(share * len(damaged))]), max_pixels=1_000_000))
    except ImageError:
        return
    assert [p.page for p in pages] == list(range(1, len(pages) + 1))
    for source in pages:
        assert source.pixels_bgr.dtype == np.uint8
        assert source.pixels_bgr.flags.c_contiguous
        assert source.pixels_bgr.shape[2:] == (3,)
        assert source.pixels_bgr.size > 0


# What a decoder makes a picture of though it is not all there, and why it is refused here.
REFUSED = {
    "bombs/pil_decompression_bomb_extents.gif": "page 2 claims",
    "colour_models/pil_ultrahdr.jpg": "truncated",
    "corrupt/pil_truncated_jpeg.jpg": "truncated",
    "generated/truncated_01pct.jpg": "truncated",
    "generated/truncated_10pct.jpg": "truncated",
    "generated/truncated_50pct.jpg": "truncated",
    "generated/bitflips.jpg": "broken data stream",
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_hostile_file_gives_what_a_decoder_safely_gives_or_a_reason(shared: Path):
    folder = shared / "data" / "hostile"
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert len(entries) == 228
    for entry in entries:
        started = time.perf_counter()
        try:
            pages = list(read_image(folder / entry["file"]))
        except ImageError as error:
            pages, reason = [], str(error)
        assert time.perf_counter() - started < 5, entry["file"]
        by_opencv = (entry["opencv"] or "").startswith("(")
        by_pillow = "EXC" not in entry["pillow"] and "LOADFAIL" not in entry["pillow"]
        if entry["file"] in REFUSED:
            assert not pages
            assert REFUSED[entry["file"]].split()[-1] in reason, entry["file"]
        elif by_opencv or by_pillow:
            assert pages, f"{entry['file']}: {reason}"
            expected = entry["opencv"].split(":")[0] if by_opencv else str((*pages[0].pixels_bgr.shape[:2], 3))
            assert str(pages[0].pixels_bgr.shape) == expected, entry["file"]
            if "frames=" in entry["pillow"]:
                assert len(pages) == int(entry["pillow"].split("frames=")[1].split()[0]), entry["file"]
