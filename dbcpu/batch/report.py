"""What a run leaves beside the pages' own files: a summary, a contact sheet, formats with one file for all pages."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dbcpu import __version__
from dbcpu.batch.store import SHEET, SUMMARY
from dbcpu.batch.work import thumbnail_name
from dbcpu.errors import OutputError
from dbcpu.result import SCHEMA_VERSION
from dbcpu.writers.contact_sheet import SheetPage, contact_sheet
from dbcpu.writers.formats import PAGE_FORMATS, RUN_FORMATS
from dbcpu.writers.json_document import read_json_document
from dbcpu.writers.page_files import overlay_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dbcpu.batch.records import PageRecord
    from dbcpu.batch.store import Results, Store
    from dbcpu.batch.work import Facts
    from dbcpu.result import DetectionResult
    from dbcpu.writers.page_files import PictureFormat

logger = logging.getLogger(__name__)
_MOST_FAILURES = 10_000  # listed in the summary; the manifest has all of them


@dataclass
class Totals:
    """Sums over records."""

    pages: int = 0
    failed: int = 0
    truncated: int = 0
    instances: int = 0
    seconds: float = 0.0
    failures: list[dict[str, object]] = field(default_factory=list)

    def add(self, record: PageRecord) -> None:
        """Count a record."""
        self.pages += 1
        self.failed += record.status == "failed"
        self.truncated += record.truncated
        self.instances += record.instances
        self.seconds += record.seconds
        if record.status == "failed" and len(self.failures) < _MOST_FAILURES:
            self.failures.append({"path": record.path, "page": record.page, "error": record.error})


def write_reports(
    store: Results,
    records: Callable[[], Iterable[PageRecord]],
    facts: Facts,
    *,
    run_formats: Sequence[str],
    overlay: PictureFormat | None,
    left_out: Mapping[str, int],
) -> Totals:
    """Write `summary.json`, `index.html` and the formats of the whole run, from the manifest and the pages' results.

    Args:
        store: of the pages' results, in whose folder they go.
        records: gives those of the manifest, from the first one.
        facts: of the model and the settings.
        run_formats: names of formats.
        overlay: form of the overlays, None where there are none.
        left_out: how many files were left out, by their endings.

    Raises:
        OutputError: a file cannot be written, or a page's result is there and cannot be read back.
    """
    totals = sums(records())
    summary = {
        "schema_version": SCHEMA_VERSION,
        "dbcpu": __version__,
        "model": facts.model,
        "pages": totals.pages,
        "done": totals.pages - totals.failed,
        "failed": totals.failed,
        "truncated": totals.truncated,
        "instances": totals.instances,
        "seconds": round(totals.seconds, 3),
        "left_out": dict(sorted(left_out.items())),
        "failures": totals.failures,
        "settings": facts.settings,
    }
    store.write_text(SUMMARY, [json.dumps(summary, indent=2) + "\n"])
    title = f"{totals.pages} pages, {totals.instances} instances"
    pages = (_sheet_page(record, overlay) for record in records())
    store.write_text(SHEET, contact_sheet(pages, title=title))
    gone: set[str] = set()
    for name in run_formats:
        run_format = RUN_FORMATS[name]
        store.write_text(run_format.file_name, run_format.write(_results(records(), store, gone)))
    if gone:
        files = ", ".join(RUN_FORMATS[name].file_name for name in run_formats)
        logger.warning("%s: without pages whose results are gone: %d, such as %s", files, len(gone), min(gone))
    return totals


def _results(records: Iterable[PageRecord], store: Store, gone: set[str]) -> Iterator[DetectionResult]:
    """Yield the results of pages; `gone` gets the names of those that somebody has removed."""
    for record in records:
        if record.results is None:
            continue
        name = json_name(record.results)
        try:
            content = store.read(name)
        except OutputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            gone.add(name)
        else:
            yield read_json_document(content)


def sums(records: Iterable[PageRecord]) -> Totals:
    """Return the sums over records."""
    totals = Totals()
    for record in records:
        totals.add(record)
    return totals


def json_name(results: str) -> str:
    """Return the name of a page's JSON document, by `PageRecord.results`."""
    return PAGE_FORMATS["json"].file_name(PurePosixPath(results)).as_posix()


def _sheet_page(record: PageRecord, overlay: PictureFormat | None) -> SheetPage:
    name = record.path if record.page == 1 and record.is_last else f"{record.path}, page {record.page}"
    if record.results is None:
        return SheetPage(name=name, error=record.error)
    thumbnail = thumbnail_name(record.results)
    picture = thumbnail if overlay is None else str(overlay_name(PurePosixPath(record.results), overlay))
    return SheetPage(
        name=name,
        picture=picture,
        thumbnail=thumbnail,
        instances=record.instances,
        lowest_score=record.lowest_score,
    )
