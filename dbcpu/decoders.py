"""Pages of picture files: Pillow decodes them, and OpenCV where Pillow has no mode for the samples."""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

# Each of these plugins registers its format. Left out are those that run another program (EPS) or draw fonts (WMF).
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
)

from dbcpu.errors import ImageError, NoSuchPageError
from dbcpu.geometry import Size
from dbcpu.pixels import (
    PHOTOMETRIC_INTERPRETATION,
    WHITE_IS_ZERO,
    Pixels,
    bgr_from_picture,
    bgr_from_samples,
    turn_back,
    turn_upright,
)

# TGA comes last: it has no signature, only a plausible header.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM", "AVIF", "TGA")
_ORIENTATION = 0x0112
_NEW_SUBFILE_TYPE = 254
_BITS_PER_SAMPLE = 258
_PLANAR_CONFIGURATION = 284
_REDUCED_OR_MASK = 0b101  # bits of it: a smaller version of another page, a transparency mask
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
_JPEG_PIXELS_PER_BYTE = 1024  # twice what is possible: a block of 64 pixels takes at least a bit
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000; the size follows
_UNSIGNED_16_BITS = 15

# What Pillow complains about becomes an error here, or does not matter to a reader of pixels.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+Plugin")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def has_signature(head: bytes) -> bool:
    """Tell whether a file that starts so (16 bytes or more) claims to be a picture of a format other than TGA."""
    return _format_of(head) != "TGA"


def decode_pages(
    stream: BinaryIO, *, max_pixels: int, ignore_exif: bool, first_page: int = 1
) -> Iterator[tuple[Pixels, bool]]:
    """Decode the pages of a file one after the other.

    Args:
        stream: seekable; read from its start, whatever its position.
        max_pixels: of a page; more are refused on the strength of the header.
        ignore_exif: leave the pixels as they are stored.
        first_page: the pages before it are not decoded, but for frames of an animation, which build on each other.

    Yields:
        uint8 (H, W, 3) BGR, and whether this is the last page.

    Raises:
        ImageError: no known format, too many pixels, or fewer pages than `first_page`; without `where`.
        Exception: any other, from the depth of a decoder.
    """
    try:
        picture = _open(stream, max_pixels)
    except ImageError:
        raise
    except Exception:
        pages = list(_headers_of_refused(stream))
        if not pages:
            raise
        check_first_page(first_page, len(pages))
        yield from _decode_refused(stream, pages, first_page, max_pixels=max_pixels, ignore_exif=ignore_exif)
        return
    _pass_over(picture, first_page)
    failure: Exception | None = None
    more = True
    while more:
        _check_size(Size(picture.height, picture.width), max_pixels)
        if picture.format in ("JPEG", "MPO"):
            _check_jpeg_length(picture, stream.seek(0, io.SEEK_END))
        with _pillow_limit.raised_to(max_pixels):
            pixels = _decode(picture, stream, ignore_exif=ignore_exif)
            try:
                more = _advance(picture)
            except Exception as error:  # the page after this one is broken, or nothing for Pillow; this one is good
                failure = error
        if not more:
            del picture  # frees its pixels while the caller works with ours
        yield pixels, not more
        del pixels  # or it would stay while the next page is decoded
        if failure is not None:
            pages = list(_headers_of_refused(stream))
            if picture.tell() >= len(pages):
                raise failure
            following = picture.tell() + 1
            yield from _decode_refused(stream, pages, following, max_pixels=max_pixels, ignore_exif=ignore_exif)
            return


def first_page_size(stream: BinaryIO) -> Size | None:
    """Return the size that the header of a picture file claims, None without one; the stream goes to its start."""
    try:
        picture = _open(stream, 1 << 62)
        return Size(picture.height, picture.width)
    except Exception:  # whatever is wrong with the file, reading it will say so
        return None
    finally:
        stream.seek(0)


def _open(stream: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header with the plugin that the first bytes call for; `PIL.Image.open` has its own limit on pixels."""
    stream.seek(0)
    head = stream.read(16)
    name = _format_of(head)
    factory, accept = Image.OPEN[name]
    if accept is not None and isinstance(accept(head), str):
        raise ImageError(f"this installation of Pillow cannot read {name}")
    with _pillow_limit.raised_to(max_pixels):
        try:
            stream.seek(0)
            return factory(stream, "")
        except Exception as error:
            if name == "PNG":  # a text or a colour profile that is broken or bloated makes no page unreadable
                return factory(io.BytesIO(_pixel_chunks(_content(stream))), "")
            if name == "TGA":
                raise ImageError("not a picture of a known format, or its first bytes are damaged") from error
            raise


def _format_of(head: bytes) -> str:
    for name in _FORMATS:
        accept = Image.OPEN[name][1]
        if accept is None or accept(head):
            break
    return name


def _decode(picture: ImageFile.ImageFile, stream: BinaryIO, *, ignore_exif: bool) -> Pixels:
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        orientation = _orientation(picture)
        pixels = _pixels(picture, stream)  # both decoders turn a TIFF upright by themselves
        _release(picture)
        return turn_back(pixels, orientation) if ignore_exif else pixels
    pixels = _pixels(picture, stream)
    if picture.format == "MPO" or not getattr(picture, "is_animated", False):  # a next frame may build on this one
        _release(picture)
    return pixels if ignore_exif else turn_upright(pixels, _orientation(picture))


def _release(picture: ImageFile.ImageFile) -> None:
    """Free Pillow's own copy of the pixels, up to 4 bytes each; a next page gets memory of its own."""
    picture.im = Image.new("1", (1, 1)).im


def _orientation(picture: ImageFile.ImageFile) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data says nothing
        return 1
    return value if isinstance(value, int) else 1


def _pixels(picture: ImageFile.ImageFile, stream: BinaryIO) -> Pixels:
    bits, in_planes = _depth(picture, stream)
    if bits > 8 and (picture.mode in ("RGB", "RGBA") or in_planes):
        # Pillow would keep the upper 8 bits of each colour, and a 12-bit scan would come out black. In separate planes
        # it misreads more than 8 bits, and OpenCV reads them right only when it reduces them.
        raw_mode = str(picture.tile)
        flags = cv2.IMREAD_COLOR if in_planes else cv2.IMREAD_UNCHANGED
        samples = _opencv_samples(_content(stream), picture.tell(), flags)
        if samples is not None and samples.shape[:2] == (picture.height, picture.width):
            samples = samples[..., :3] if "RGBX" in raw_mode else samples
            return bgr_from_samples(samples, premultiplied="RGBa" in raw_mode)
        if in_planes:
            raise ImageError("separate planes of more than 8 bits", remedy="save its colours interleaved")
    return bgr_from_picture(picture)


def _depth(picture: ImageFile.ImageFile, stream: BinaryIO) -> tuple[int, bool]:
    """Return the bits per sample, and whether each colour has a plane of its own."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = picture.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        return max(bits), picture.tag_v2.get(_PLANAR_CONFIGURATION, 1) == 2 and len(bits) > 1
    if picture.format == "JPEG2000":  # any other depth than 16 bits Pillow scales by its full range
        is_deep = _codestream(_content(stream))[38] == _UNSIGNED_16_BITS
    elif picture.format == "PPM":
        codec, _, _, arguments = picture.tile[0]
        is_deep = codec == "ppm" and isinstance(arguments, tuple) and arguments[1] > 255
    else:
        is_deep = ";16" in str(picture.tile)
    # Of an APNG OpenCV would give the first frame for every other.
    return 16 if is_deep and picture.tell() == 0 else 8, False


def _codestream(content: bytes) -> bytes:
    """Return what the codestream of a JPEG 2000 begins with: the sizes, and from byte 38 each component's depth."""
    start = content.index(_CODESTREAM) + len(_CODESTREAM)
    return content[start : start + 64]


def _advance(picture: ImageFile.ImageFile) -> bool:
    """Go to the next page; False at the end.

    Previews are no pages: those of a TIFF are marked, and all further pictures of a multi-picture JPEG are taken for
    such, since phones and cameras put previews and gain maps there.
    """
    while picture.format != "MPO":
        following = picture.tell() + 1
        try:
            picture.seek(following)
        except EOFError:
            if following < getattr(picture, "n_frames", 1):
                raise
            return False
        if not getattr(picture, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            return True
    return False


def check_first_page(first_page: int, count: int) -> None:
    """Refuse to begin beyond the last page of a file."""
    if first_page > count:
        raise NoSuchPageError(f"the file ends with page {count}")


def _pass_over(picture: ImageFile.ImageFile, first_page: int) -> None:
    for page in range(1, first_page):
        if not _advance(picture):
            check_first_page(first_page, page)


def _check_size(size: Size, max_pixels: int) -> None:
    if size.height * size.width > max_pixels:
        what = f"{size.width} x {size.height} pixels are more than the limit of {max_pixels}"
        raise ImageError(what, remedy="raise max_pixels if the picture can be trusted")


def _check_jpeg_length(picture: ImageFile.ImageFile, length: int) -> None:
    """Refuse a JPEG too short for its size: libjpeg would fill up with grey, gigabytes of it, without a word."""
    if picture.height * picture.width > _JPEG_PIXELS_PER_BYTE * length:
        raise OSError("truncated")


class _PillowLimit:
    """Pillow's limit on pixels, one for the whole process; raised while pictures are decoded under a higher one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: list[int] = []
        self._original: int | None = None

    @contextlib.contextmanager
    def raised_to(self, limit: int) -> Iterator[None]:
        with self._lock:
            if not self._at_work:
                self._original = Image.MAX_IMAGE_PIXELS
            self._at_work.append(limit)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._at_work.remove(limit)
                self._apply()

    def _apply(self) -> None:
        Image.MAX_IMAGE_PIXELS = None if self._original is None else max([self._original, *self._at_work])


_pillow_limit = _PillowLimit()


def _content(stream: BinaryIO) -> bytes:
    """Read the whole file without moving in it."""
    position = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(position)
    return content


def _pixel_chunks(png: bytes) -> bytes:
    """Drop the chunks of a PNG that say nothing about its pixels, or that claim to be longer than the file."""
    kept, start = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while start + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, start)
        end = start + 12 + length
        if kind in _PIXEL_CHUNKS and end <= len(png):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


_opencv_lock = threading.Lock()
_set_opencv_log_level: Any = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # 4, 5


def _opencv_samples(content: bytes, index: int, flags: int = cv2.IMREAD_UNCHANGED) -> npt.NDArray[Any] | None:
    """Decode a page, by default in its depth: (H, W), (H, W, 3) BGR or (H, W, 4); None where OpenCV cannot."""
    if content.startswith(_PNG_SIGNATURE):
        content = _pixel_chunks(content)  # libpng prints warnings about the others
    buffer = np.frombuffer(content, np.uint8)
    with _opencv_lock:
        level = _set_opencv_log_level(0)
        try:
            if index == 0:
                return cv2.imdecode(buffer, flags)
            _, pages = cv2.imdecodemulti(buffer, flags, range=(index, index + 1))
            return pages[0] if pages else None
        except cv2.error:
            return None
        finally:
            _set_opencv_log_level(level)


class _Header(NamedTuple):
    """Of a page that Pillow refuses."""

    size: Size
    orientation: int = 1
    white_is_zero: bool = False


def _decode_refused(
    stream: BinaryIO, pages: list[_Header], first_page: int, *, max_pixels: int, ignore_exif: bool
) -> Iterator[tuple[Pixels, bool]]:
    """Decode with OpenCV what Pillow refuses to open, such as colours in float."""
    for index, header in enumerate(pages[first_page - 1 :], start=first_page - 1):
        _check_size(header.size, max_pixels)
        samples = _opencv_samples(_content(stream), index)
        if samples is None:
            raise ImageError("damaged, or of a kind that cannot be decoded")
        # Samples of 8 bits come as light from OpenCV, whatever the file says.
        pixels = bgr_from_samples(samples, white_is_zero=header.white_is_zero and samples.itemsize > 1)
        del samples
        yield turn_back(pixels, header.orientation) if ignore_exif else pixels, index + 1 == len(pages)
        del pixels


def _headers_of_refused(stream: BinaryIO) -> Iterator[_Header]:
    """Read the header of each page of a TIFF or a JPEG 2000."""
    content = _content(stream)
    if content[:4] in (b"II*\0", b"MM\0*"):
        directory = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        visited: set[int] = set()
        with contextlib.suppress(Exception):  # what comes after a broken directory is out of reach
            while directory.next and directory.next not in visited:
                visited.add(directory.next)
                stream.seek(directory.next)
                directory.load(stream)
                if directory.get(_PLANAR_CONFIGURATION, 1) != 1:  # OpenCV misreads deep planes
                    return
                yield _Header(
                    Size(directory[257], directory[256]),
                    directory.get(_ORIENTATION, 1),
                    directory.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO,
                )
    elif content[4:8] == b"jP  " and _CODESTREAM in content:
        right, bottom, left, top = struct.unpack_from(">4xIIII", _codestream(content))
        yield _Header(Size(bottom - top, right - left))
