"""The work on pages: read, detect, write, tell; done in worker processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import sys
import time
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from dbcpu.batch.addresses import is_address
from dbcpu.batch.heavy import Gate, is_heavy
from dbcpu.batch.records import PageRecord, Rest, Unchanged, Waiting
from dbcpu.batch.remote import open_remote
from dbcpu.batch.store import MANIFEST, OWN, SHEET, SUMMARY
from dbcpu.errors import ImageError, NoSuchPageError, OutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dbcpu.batch.records import Scan, Task
    from dbcpu.batch.store import Store
    from dbcpu.detector import Detector
    from dbcpu.image import SourceImage
    from dbcpu.reading_order import ReadingOrder
    from dbcpu.result import DetectionResult
    from dbcpu.writers.page_files import PictureFormat

logger = logging.getLogger(__name__)

# Of the result file of a page: with these, only this page is to blame, not the place where results go.
_ERRORS_OF_A_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL)
_NOT_SHAPING = ("max_pixels", "password")  # they decide whether a page can be read, not what is found on it
_THUMBNAILS = PurePosixPath("index_files")
_BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run has to know of its model and settings.

    Attributes:
        model: file name of the weights.
        fingerprint: of the model and all settings that shape results.
        settings: themselves, ready for JSON.
    """

    model: str
    fingerprint: str
    settings: dict[str, Any]


@dataclass(kw_only=True)
class PageWork:
    """Detects the text of scans and writes its results; a `Work` of the worker pool.

    Attributes:
        store: where results go.
        detector: keyword arguments of `load_detector`.
        formats: names of page formats, "json" among them.
        overlay: form of the pictures with the instances drawn over them, or None.
        crops: whether instances are cut out.
        rotate_crops: whether crops of vertical text are turned.
        probability_map: whether these are written.
        thumbnails: whether small pictures for the contact sheet are written.
        order: of the instances.
        reading: keyword arguments of `read_image`.
        max_bytes: of a file; larger ones are not read.
        threads: of a worker.
        gate: as in `Gate`.
    """

    store: Store
    detector: dict[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ("json",)
    overlay: PictureFormat | None = None
    crops: bool = False
    rotate_crops: bool = False
    probability_map: bool = False
    thumbnails: bool = True
    order: ReadingOrder = "none"
    reading: dict[str, Any] = field(default_factory=dict)
    max_bytes: int
    threads: int = 1
    gate: str | None = None

    def prepare(self) -> Facts:
        """Load the detector.

        Raises:
            DbcpuError: as `load_detector`.
        """
        from dbcpu.detector import DEFAULT_MODEL, load_detector
        from dbcpu.engine.memory import keep_freed_memory
        from dbcpu.engine.threads import set_threads
        from dbcpu.writers.formats import RUN_FORMATS, page_formats
        from dbcpu.writers.page_files import PageParts

        keep_freed_memory()
        self._gate = Gate(self.gate)
        set_threads(1)  # those of a process that is forked would be missing in the new one
        self._detector: Detector = load_detector(**self.detector)
        self._taken = {OWN, MANIFEST, SUMMARY, SHEET, *(run_format.file_name for run_format in RUN_FORMATS.values())}
        self._parts = PageParts(
            formats=page_formats(",".join(self.formats)),
            overlay=self.overlay,
            crops=self.crops,
            rotate_crops=self.rotate_crops,
            probability_map=self.probability_map,
        )
        weights = Path(self.detector.get("weights") or DEFAULT_MODEL)
        with weights.open("rb") as stream:
            model_sha256 = _sha256(stream)
        settings = {
            **self._detector.description,
            "model_sha256": model_sha256,
            "formats": sorted(self.formats),
            "overlay": self.overlay,
            "crops": self.crops,
            "rotate_crops": self.rotate_crops,
            "probability_map": self.probability_map,
            "thumbnails": self.thumbnails,
            "order": self.order,
            "reading": {key: value for key, value in self.reading.items() if key not in _NOT_SHAPING},
        }
        self._facts = Facts(
            model=self._detector.name,
            fingerprint=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
            settings=settings,
        )
        return self._facts

    def __call__(self, task: Task) -> Iterator[PageRecord | Unchanged | Rest | Waiting]:
        """Work on a scan, page by page.

        Yields:
            A record for each page that was not done already. Where pages can be read in any order, those after the
            first are left for tasks of their own.

        Raises:
            OutputError: results cannot be written, whatever the page.
        """
        from dbcpu.engine.threads import set_threads

        set_threads(self.threads)  # torch counts them for each lane
        clerk = _Clerk(task, self._facts.fingerprint)
        try:
            with _opened(task.scan, self.max_bytes, whole=task.sha256 is None) as stream:
                clerk.sha256 = task.sha256 or _sha256(stream)
                if task.done_for_sha256 == clerk.sha256:
                    yield Unchanged(scan=task.scan)
                    if task.is_complete:
                        return
                elif task.done_for_sha256 is not None:
                    task = replace(task, done_pages=frozenset(), done_for_sha256=None)
                with self._gate.passed() as waiting:
                    if is_heavy(stream):
                        yield from (Waiting() for _ in waiting)
                    yield from self._pages(task, stream, clerk)
        except ImageError as error:
            yield clerk.failed(error, is_last=task.page_count in (None, task.first_page))

    def _pages(self, task: Task, stream: BinaryIO, clerk: _Clerk) -> Iterator[PageRecord | Rest]:
        from dbcpu.image import read_image

        page = task.next_page(task.first_page)
        clerk.turn_to(page)
        while task.last_page is None or page <= task.last_page:
            try:
                if task.failure is not None and page == task.failure.page:
                    raise ImageError(task.failure.error or "failed")
                for source in read_image(stream, name=task.scan.name, first_page=page, **self.reading):
                    if page not in task.done_pages:
                        yield clerk.done(source, self._write_page(task, source))
                    page += 1
                    clerk.turn_to(page)
                    if task.page_count is None and source.page_count is not None and not source.is_last:
                        yield Rest(task=task, first_page=page, page_count=source.page_count, sha256=clerk.sha256)
                        return
                    del source  # a large page must not stay in memory while the next one is read
                    if page == (task.last_page or 0) + 1:
                        return
                return
            except (OutputError, GeneratorExit):
                raise
            except Exception as error:  # whatever a page does to the libraries below, the others go on
                is_last = self._is_last(page, task, stream)
                yield clerk.failed(_image_error(error), is_last=is_last)
                if is_last:
                    return
                page += 1
                clerk.turn_to(page)

    def _is_last(self, page: int, task: Task, stream: BinaryIO) -> bool:
        """Whether no page follows one that cannot be read, or the end of the file is out of reach."""
        if task.page_count is not None:
            return page == task.page_count
        return self._ends_before(page + 1, stream) or not self._ends_before(sys.maxsize, stream)

    def _ends_before(self, page: int, stream: BinaryIO) -> bool:
        from dbcpu.image import read_image

        try:
            next(read_image(stream, first_page=page, **{**self.reading, "max_pixels": 0}))  # so that none is decoded
        except NoSuchPageError:
            return True
        except Exception:  # as whatever reads it will find
            return False
        return False

    def _write_page(self, task: Task, source: SourceImage) -> DetectionResult:
        """Detect the text of a page and write its files."""
        from dbcpu.engine.memory import give_back
        from dbcpu.reading_order import in_reading_order
        from dbcpu.writers.page_files import page_files

        give_back(source.pixels_bgr.nbytes)
        result, probability_map = self._detector.detect_with_map(source)
        result = in_reading_order(result, self.order)
        name = Path(results_of(source))
        written: set[str] = set()

        def picture_from(file: Path) -> str:
            return self.store.picture_from(file.as_posix(), task.scan.path)

        files = page_files(self._parts, name, source.pixels_bgr, result, probability_map, picture_from)
        try:
            for _, file, content in files:
                self._write(file.as_posix(), content)
                written.add(file.as_posix())
            if self.thumbnails:
                from dbcpu.writers.contact_sheet import draw_thumbnail

                thumbnail = thumbnail_name(name.as_posix())
                self._write(thumbnail, draw_thumbnail(source.pixels_bgr, result))
                written.add(thumbnail)
        except Exception:  # a page that failed has no results
            with contextlib.suppress(OutputError):  # the first error is the one to tell
                self.store.remove(written)
            raise
        if task.replaces:
            remove_page(self.store, name.as_posix(), keep=written)
        return result

    def _write(self, name: str, content: bytes) -> None:
        if (first := name.split("/")[0]) in self._taken:
            what = f"its results could not be written: {first} is for the results of the whole run"
            raise ImageError(what, where=name, remedy="give it another name")
        try:
            self.store.write(name, content)
        except OutputError as error:
            cause = error.__context__  # also where it is no cause worth showing
            if isinstance(cause, OSError) and cause.errno in _ERRORS_OF_A_NAME:
                raise ImageError(f"its results could not be written: {cause.strerror}", where=name) from error
            raise


def results_of(source: SourceImage) -> str:
    """Return the base of the names of a page's files, such as `a/b.jpg`, or `a/b.pdf.p0003` where there are several."""
    from dbcpu.writers.names import page_name

    several = not (source.page == 1 and source.is_last)
    return page_name(PurePosixPath(source.name), source.page, several=several).as_posix()


def thumbnail_name(results: str) -> str:
    """Return the name of a page's small picture, by `PageRecord.results`."""
    return f"{_THUMBNAILS}/{results}.jpg"


def remove_page(store: Store, results: str, *, keep: Collection[str] = ()) -> None:
    """Remove the files of a page, by `PageRecord.results`, but for those to keep.

    Raises:
        OutputError: one cannot be removed.
    """
    from dbcpu.writers.page_files import crop_names, possible_names

    names = (*map(str, possible_names(PurePosixPath(results))), thumbnail_name(results))
    store.remove([name for name in names if name not in keep])
    crops = (crop for crop in map(str, crop_names(PurePosixPath(results))) if crop not in keep)
    store.remove(list(takewhile(store.exists, crops)))


class _Clerk:
    """Writes the records of a task's pages."""

    def __init__(self, task: Task, fingerprint: str) -> None:
        self._task = task
        self._fingerprint = fingerprint
        self.sha256 = task.sha256
        if task.failure is not None:
            self._ended = time.perf_counter() - task.failure.seconds
        self.turn_to(task.first_page)

    def turn_to(self, page: int) -> None:
        """Begin a page, which the next record is of; its reading counts from the end of the one before."""
        self._page = page
        self._started = getattr(self, "_ended", time.perf_counter())

    def done(self, source: SourceImage, result: DetectionResult) -> PageRecord:
        scores = [instance.score for instance in result.instances]
        return self._record(
            status="done",
            is_last=source.is_last,
            instances=len(scores),
            lowest_score=min(scores, default=None),
            truncated=result.truncated,
            results=results_of(source),
        )

    def failed(self, error: ImageError, *, is_last: bool = True) -> PageRecord:
        what = error.what if error.remedy is None else f"{error.what} ({error.remedy})"
        return self._record(status="failed", is_last=is_last, error=what)

    def _record(self, **fields: Any) -> PageRecord:
        self._ended = time.perf_counter()
        return PageRecord(
            path=self._task.scan.name,
            page=self._page,
            size=self._task.scan.size,
            mtime_ns=self._task.scan.mtime_ns,
            version=self._task.scan.version,
            sha256=self.sha256,
            seconds=round(self._ended - self._started, 3),
            settings=self._fingerprint,
            **fields,
        )


def _image_error(error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    logger.debug("traceback", exc_info=error)
    return ImageError(f"unexpected error: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _opened(scan: Scan, max_bytes: int, *, whole: bool) -> Iterator[BinaryIO]:
    if scan.size > max_bytes:
        what = f"{scan.size} bytes are more than the limit of {max_bytes}"
        raise ImageError(what, remedy="raise --max-bytes if the file can be trusted")
    try:
        local = not is_address(scan.path)
        # A path is a string that may be no valid text; the stream is closed below.
        stream = open(scan.path, "rb") if local else open_remote(scan, max_bytes, whole=whole)  # noqa: PTH123, SIM115
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise ImageError("no such file" if missing else f"cannot be opened: {error.strerror or error}") from error
    with stream:
        yield stream


def _sha256(stream: BinaryIO) -> str:
    """Return the digest of a stream, which is left at its start."""
    digest = hashlib.sha256()
    try:
        while chunk := stream.read(_BYTES_AT_ONCE):
            digest.update(chunk)
        stream.seek(0)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
