"""Pages as the detector takes them, from picture files, PDFs, bytes, streams and arrays."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from dbcpu.decoders import decode_pages
from dbcpu.errors import ImageError
from dbcpu.pdf import DEFAULT_DPI, is_pdf, render_pages
from dbcpu.pixels import bgr_from_samples

# A newspaper page at 600 dpi has some 250 million. At its peak decoding takes these bytes for each: grey and palettes
# 4, 8-bit colours, 16-bit grey and PDF 7, a turned TIFF 8, AVIF 10, 16-bit colours 14 to 18, WebP 16, JPEG 2000 20,
# colours in floating point 36; so at the limit 2 GB for grey, 3.5 GB for colours. A page that is read takes 3.
MAX_PIXELS = 500_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImage:
    """One page to look for text on.

    Attributes:
        name: the picture's name as the caller gave it.
        page: number of the page in its file, from 1.
        is_last: whether no page follows in the file.
        page_count: number of pages in the file where it says so itself, as a PDF does; None where they would have to be
            gone through.
        pixels_bgr: uint8 (H, W, 3), blue first, upright, C-contiguous.
    """

    name: str
    page: int = 1
    is_last: bool = True
    page_count: int | None = None
    pixels_bgr: npt.NDArray[np.uint8]


def read_image(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    name: str | None = None,
    ignore_exif: bool = False,
    max_pixels: int = MAX_PIXELS,
    dpi: int = DEFAULT_DPI,
    password: str | None = None,
    first_page: int = 1,
) -> Iterator[SourceImage]:
    """Read the pages of a file one at a time: JPEG, PNG, TIFF, WebP, GIF, BMP, JPEG 2000, PNM, AVIF, TGA, PDF.

    A page is decoded when it is asked for. A file that ends too early or whose data contradict themselves is refused,
    where it would decode to a picture that is partly grey. Previews inside a file are no pages. Which kind a file is of
    is told by its content.

    Args:
        source: a path, or the content of a file, or a binary stream, read from its start.
        name: what results and errors call the picture; the path if there is one.
        ignore_exif: leave the pixels as they are stored, for ground truth that was drawn so.
        max_pixels: of a page; larger ones are refused before they are decoded.
        dpi: that pages of a PDF are drawn at, in pixels per inch of the page.
        password: that opens an encrypted PDF.
        first_page: where to begin, from 1. What lies before it is passed over without being decoded, but for the frames
            of an animation, each of which builds on those before.

    Yields:
        The pages in the order of the file.

    Raises:
        ImageError: the file or, after the pages before it, a page cannot be read.
    """
    name = _name(source) if name is None else name
    page = first_page - 1
    with _open(source, name) as stream:
        try:
            if is_pdf(stream):
                drawn = render_pages(stream, dpi=dpi, password=password, max_pixels=max_pixels, first_page=first_page)
                for pixels, count in drawn:
                    page += 1
                    yield SourceImage(name=name, page=page, is_last=page == count, page_count=count, pixels_bgr=pixels)
                    del pixels  # or it would stay while the next page is drawn
                return
            decoded = decode_pages(stream, max_pixels=max_pixels, ignore_exif=ignore_exif, first_page=first_page)
            for pixels, is_last in decoded:
                page += 1
                yield SourceImage(name=name, page=page, is_last=is_last, pixels_bgr=pixels)
                del pixels
        except Exception as error:  # a decoder may raise anything over a malformed file, MemoryError included
            raise _image_error(error, name if page == 0 else f"{name}, page {page + 1}") from error


def source_from_array(pixels: npt.NDArray[np.uint8], name: str = "array") -> SourceImage:
    """Take a picture that is in memory already.

    Args:
        pixels: uint8, shape (H, W, 3) blue first, (H, W) grey, or (H, W, 4) with alpha, which is composed on white
            unless it is 0 everywhere.
        name: what results and errors call the picture.

    Raises:
        ImageError: another type or shape, or no pixels.
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        what = f"expected uint8 of shape (H, W, 3), (H, W) or (H, W, 4), found {array.dtype} of shape {array.shape}"
        raise ImageError(what, where=name)
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no pixels", where=name)
    is_bgr = array.shape[2:] == (3,)
    return SourceImage(name=name, pixels_bgr=np.ascontiguousarray(array) if is_bgr else bgr_from_samples(array))


def _name(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(os.fspath(source))
    return str(getattr(source, "name", type(source).__name__))


@contextlib.contextmanager
def _open(source: Any, name: str) -> Iterator[BinaryIO]:
    """Give a seekable stream of at least one byte."""
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, (str, os.PathLike)):
                stream: BinaryIO = stack.enter_context(open(source, "rb"))  # noqa: PTH123 - paths of any kind
            else:
                stream = io.BytesIO(source) if isinstance(source, bytes) else source
            if not stream.seekable():
                stream = io.BytesIO(stream.read())
            empty = stream.seek(0, os.SEEK_END) == 0
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise _image_error(error, name) from error
        if empty:
            raise ImageError("the file is empty", where=name)
        yield stream


def _image_error(error: Exception, where: str) -> ImageError:
    """Say what went wrong in words that a person with a folder of scans can use."""
    if isinstance(error, ImageError):
        return type(error)(error.what, where=where, remedy=error.remedy)
    if isinstance(error, FileNotFoundError):
        return ImageError("no such file", where=where)
    if isinstance(error, IsADirectoryError):
        return ImageError("a folder, not a picture", where=where, remedy="name the pictures in it, or use dbcpu batch")
    if isinstance(error, PermissionError):
        return ImageError("may not be read: permission denied", where=where)
    if isinstance(error, MemoryError):
        return ImageError("does not fit into memory", where=where)
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("claims far more pixels than the limit", where=where)
    if isinstance(error, OSError) and error.strerror:  # the system's, not a decoder's
        return ImageError(f"cannot be read: {error.strerror}", where=where)
    reason = " ".join(str(error).split())
    if "truncated" in reason.lower():
        return ImageError("truncated: the file ends before the picture does", where=where, remedy="copy it again")
    # Other types are a decoder's surprise over malformed data, and their texts say nothing to a reader.
    detail = f": {reason}" if isinstance(error, (OSError, ValueError)) and reason else ""
    return ImageError(f"damaged, or of a kind that cannot be decoded{detail}", where=where)
