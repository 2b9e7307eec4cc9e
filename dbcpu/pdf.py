"""Pages of PDF files, drawn by pdfium."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from dbcpu.decoders import check_first_page, has_signature
from dbcpu.errors import ImageError

if TYPE_CHECKING:
    from dbcpu.pixels import Pixels

DEFAULT_DPI = 200  # a page of A4 becomes 1654 x 2339 pixels, twice what the network looks at by default
_POINTS_PER_INCH = 72
_WHITE = (255, 255, 255, 255)
_UPRIGHT = 0  # quarter turns on top of the page's own
_SIGNATURE = b"%PDF-"
_SIGNATURE_WITHIN = 1024  # bytes; printers and mail put other things before it
_LAST_WAIT = 60  # seconds for a page in the making, at the end of the process

# pdfium serves one thread at a time, whatever the documents. A thread may come here again while it is inside, when a
# generator that nobody waits for any more is closed by the garbage collector.
_pdfium_lock = threading.RLock()


def is_pdf(stream: BinaryIO) -> bool:
    """Tell by its first bytes whether a file is a PDF, and not a picture that mentions one."""
    stream.seek(0)
    head = stream.read(_SIGNATURE_WITHIN)
    return _SIGNATURE in head and not has_signature(head)


def render_pages(
    stream: BinaryIO, *, dpi: int, password: str | None, max_pixels: int, first_page: int = 1
) -> Iterator[tuple[Pixels, int]]:
    """Draw the pages of a PDF one after the other: upright, on white, with annotations and the contents of forms.

    Args:
        stream: seekable; read in pieces, as pages ask for them.
        dpi: pixels per inch of the page.
        password: that opens an encrypted file; not looked at in those that open without.
        max_pixels: of a drawn page, and of each picture on it, which pdfium unpacks as a whole.
        first_page: where to begin, from 1; the pages before it cost nothing.

    Yields:
        uint8 (H, W, 3) BGR, and the number of pages in the file.

    Raises:
        ImageError: no pdfium, no password or a wrong one, a damaged file or page, too many pixels, or fewer pages than
            `first_page`; without `where`.
    """
    with _opened(stream, password) as document:
        count = len(document)
        check_first_page(first_page, count)
        for index in range(first_page - 1, count):
            with _pdfium_lock:
                pixels = _render(document, index, dpi, max_pixels)
            yield pixels, count
            del pixels


@contextlib.contextmanager
def _opened(stream: BinaryIO, password: str | None) -> Iterator[Any]:
    with _pdfium_lock:
        document = _open(stream, password)
    try:
        with _pdfium_lock:
            document.init_forms()
        yield document
    finally:
        with _pdfium_lock:
            document.close()


def _open(stream: BinaryIO, password: str | None) -> Any:
    pdfium = _pdfium()
    try:
        try:
            return pdfium.PdfDocument(stream)  # of many files, the password need not be meant for this one
        except pdfium.PdfiumError as error:
            if error.err_code != pdfium.raw.FPDF_ERR_PASSWORD or not password:
                raise
            return pdfium.PdfDocument(stream, password=password)
    except pdfium.PdfiumError as error:
        raise _reason(error.err_code, password) from error
    except UnicodeEncodeError as error:  # bytes of the command line that are no text
        raise _reason(pdfium.raw.FPDF_ERR_PASSWORD, password) from error


def _pdfium() -> Any:
    try:
        import pypdfium2
    except ImportError as error:
        raise ImageError("a PDF, which needs pypdfium2", remedy="pip install 'dbcpu[pdf]'") from error
    logging.getLogger("pypdfium2").addHandler(logging.NullHandler())  # that forms of one kind are not drawn
    _finish_drawing_at_exit()
    return pypdfium2


@functools.cache  # once is enough, and after pypdfium2 has registered that it unloads pdfium, which has to come later
def _finish_drawing_at_exit() -> None:
    """Let no process end while another thread draws a page, since it would crash."""
    atexit.register(_pdfium_lock.acquire, timeout=_LAST_WAIT)


def _reason(code: int | None, password: str | None) -> ImageError:
    from pypdfium2 import raw

    if code == raw.FPDF_ERR_PASSWORD and not password:
        return ImageError("an encrypted PDF", remedy="give its password with --password")
    if code == raw.FPDF_ERR_PASSWORD:
        return ImageError("the password does not open this PDF")
    if code == raw.FPDF_ERR_SECURITY:
        return ImageError("a PDF that is encrypted in a way that cannot be read")
    return ImageError("a PDF that is damaged or has no pages")


def _render(document: Any, index: int, dpi: int, max_pixels: int) -> Pixels:
    from pypdfium2 import PdfBitmap, PdfiumError, raw

    try:
        page = document[index]
    except PdfiumError as error:
        raise ImageError("a damaged page, which cannot be drawn") from error
    try:
        # Rounded, so that a scan of this resolution keeps its pixels.
        width, height = (max(1, round(side * dpi / _POINTS_PER_INCH)) for side in page.get_size())
        if width * height > max_pixels:
            what = f"{width} x {height} pixels at {dpi} dpi are more than the limit of {max_pixels}"
            raise ImageError(what, remedy="lower the dpi, or raise max_pixels if the file can be trusted")
        _check_pictures(page, max_pixels)
        bitmap = PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR)
        bitmap.fill_rect(_WHITE, 0, 0, width, height)
        drawing = (bitmap, page, 0, 0, width, height, _UPRIGHT, raw.FPDF_ANNOT)
        raw.FPDF_RenderPageBitmap(*drawing)
        if document.formenv:
            raw.FPDF_FFLDraw(document.formenv, *drawing)
        pixels: Pixels = bitmap.to_numpy()
    finally:
        page.close()
    return pixels


def _check_pictures(page: Any, max_pixels: int) -> None:
    from pypdfium2 import PdfiumError, raw

    for picture in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
        width = height = 0
        with contextlib.suppress(PdfiumError):  # a broken picture is not drawn, but the rest of the page is
            width, height = picture.get_px_size()
        if width * height > max_pixels:
            what = f"a picture of {width} x {height} pixels on the page is more than the limit of {max_pixels}"
            raise ImageError(what, remedy="raise max_pixels if the file can be trusted")
