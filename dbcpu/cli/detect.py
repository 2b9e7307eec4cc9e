"""`dbcpu detect`: text in pictures, as JSON lines, files, crops and overlays."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dbcpu.cli.options import (
    PATH,
    checkpoint_options,
    order_option,
    postprocess_options,
    resize_options,
    source_options,
    speed_options,
    tile_option,
    verbosity_options,
    weights_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbcpu.cli.results import Results
    from dbcpu.detector import Detector
    from dbcpu.errors import ImageError
    from dbcpu.image import SourceImage
    from dbcpu.reading_order import ReadingOrder

logger = logging.getLogger(__name__)
STDIN = "-"


@click.command(short_help="Find the text in pictures.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@weights_option
@checkpoint_options
@resize_options
@tile_option("off")
@postprocess_options
@source_options
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Write one result file per page there.")
@click.option(
    "--format",
    "formats",
    default="json",
    show_default=True,
    metavar="NAME[,NAME...]",
    help="Form of the results: json, jsonl, icdar, labelme, page-xml, alto, hocr, csv; several need -o.",
)
@order_option
@click.option("--overlay", type=PATH, metavar="DIR", help="Draw the instances over each page: NAME.overlay.png.")
@click.option("--crops", type=PATH, metavar="DIR", help="Cut out each instance, straightened: NAME/0001.png.")
@click.option("--rotate-crops", is_flag=True, help="Turn crops of vertical text by 90 degrees, top to the left.")
@click.option("--save-map", type=PATH, metavar="DIR", help="Write each probability map: NAME.map.png.")
@speed_options
@verbosity_options
def detect(
    images: tuple[str, ...],
    weights: Path | None,
    ignore_exif: bool,
    max_pixels: int | None,
    dpi: int | None,
    password: str | None,
    output: Path | None,
    formats: str,
    order: ReadingOrder,
    overlay: Path | None,
    crops: Path | None,
    rotate_crops: bool,
    save_map: Path | None,
    threads: int | None,
    **settings: Any,
) -> None:
    """Find the text in each IMAGE and give its polygons, in pixels of the upright picture.

    Without -o, the results go to stdout: one page as a JSON document, several as one JSON line each. `-` reads a
    picture from stdin. Pictures that cannot be read are named on stderr, and the others go on.
    """
    from dbcpu.ahead import take_ahead
    from dbcpu.cli.results import Folders, Results
    from dbcpu.detector import load_detector
    from dbcpu.engine.memory import keep_freed_memory
    from dbcpu.engine.threads import available_cpus
    from dbcpu.errors import ImageError, SomeImagesFailedError, UsageError

    if STDIN in images and sys.stdin is None:
        raise UsageError("stdin is closed", remedy="give the picture to it, as in dbcpu detect - < page.jpg")
    folders = Folders(results=output, overlays=overlay, crops=crops, maps=save_map)
    results = Results(images, folders, formats, rotate_crops=rotate_crops)
    if weights is None and logger.isEnabledFor(logging.WARNING):
        click.echo("dbcpu: no --weights given: using the default model, which finds text lines", err=True)
    keep_freed_memory()
    detector = load_detector(weights, threads=threads or available_cpus(), **settings)
    pages = 0
    failed: set[int] = set()
    with _progress(images, quiet=output is None and sys.stdout is not None and sys.stdout.isatty()) as inputs:
        for page in take_ahead(_read_all(inputs, ignore_exif, max_pixels, dpi, password), _Read.is_light):
            if page.number in failed:
                continue
            try:
                _detect_page(detector, results, page, order)
                pages += 1
            except ImageError as error:
                if len(images) == 1 and pages == 0:
                    raise
                failed.add(page.number)
                click.echo(f"dbcpu: error: {error}", err=True)
            del page  # frees its pixels before the next one is decoded
    if failed:
        raise SomeImagesFailedError(
            f"{len(failed)} of {len(images)} inputs failed", remedy="the others have their results"
        )


class _Read(NamedTuple):
    """A page of an input, or why there is none; inputs are numbered, since one may be given twice."""

    number: int
    given: str
    page: SourceImage | ImageError

    def is_light(self) -> bool:
        from dbcpu.detector import is_light
        from dbcpu.errors import ImageError

        return isinstance(self.page, ImageError) or is_light(self.page)


def _read_all(
    inputs: Iterator[str], ignore_exif: bool, max_pixels: int | None, dpi: int | None, password: str | None
) -> Iterator[_Read]:
    from dbcpu.errors import ImageError
    from dbcpu.image import MAX_PIXELS, read_image
    from dbcpu.pdf import DEFAULT_DPI

    for number, given in enumerate(inputs):
        try:
            for page in read_image(
                _read_stdin() if given == STDIN else given,
                name=given,
                ignore_exif=ignore_exif,
                max_pixels=max_pixels or MAX_PIXELS,
                dpi=dpi or DEFAULT_DPI,
                password=password,
            ):
                yield _Read(number, given, page)
                del page
        except ImageError as error:
            yield _Read(number, given, error)


def _read_stdin() -> bytes:
    buffer = sys.stdin.buffer
    # Past the buffer: the interpreter wants its lock at the end, and dies where a thread still waits for input with it.
    content: bytes = getattr(buffer, "raw", buffer).read()
    return content


def _detect_page(detector: Detector, results: Results, read: _Read, order: ReadingOrder) -> None:
    from dbcpu.engine.memory import give_back
    from dbcpu.errors import ImageError
    from dbcpu.reading_order import in_reading_order

    given, page = read.given, read.page
    if isinstance(page, ImageError):
        raise page
    logger.info("%s, page %d: %dx%d pixels", given, page.page, *reversed(page.pixels_bgr.shape[:2]))
    give_back(page.pixels_bgr.nbytes)
    result, probability_map = detector.detect_with_map(page)
    results.write(given, page, in_reading_order(result, order), probability_map)


@contextlib.contextmanager
def _progress(images: tuple[str, ...], *, quiet: bool) -> Iterator[Iterator[str]]:
    """Iterate over the inputs, with a bar on stderr where that is a terminal and nothing else is printed on it."""
    if quiet or len(images) == 1 or not sys.stderr.isatty() or not logger.isEnabledFor(logging.WARNING):
        yield iter(images)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        yield iter(bar.track(images, description="detecting"))
