"""How a batch run shows that it gets on: a bar on a terminal, lines elsewhere, JSON for machines."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dbcpu.errors import SomeImagesFailedError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dbcpu.batch.records import PageRecord, Scan
    from dbcpu.batch.report import Totals

_SECONDS_BETWEEN_LINES = 30.0
_MOST_FAILURES_SHOWN = 50  # of earlier runs


class Progress:
    """Tells on stderr of pages that end; a `Listener` of the run.

    Args:
        as_json: one JSON object a line for every event.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._in_words = not as_json and logging.getLogger("dbcpu").isEnabledFor(logging.WARNING)
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self.done = self.failed = self.skipped_scans = 0
        self._shown: set[tuple[str, int]] = set()  # failures that the user has seen

    @contextlib.contextmanager
    def showing(self, count: Callable[[], int] | None) -> Iterator[None]:
        """Show the progress during the block.

        Args:
            count: gives the number of scans; called in a thread of its own. None where it cannot be told.
        """
        if not self._in_words or not sys.stderr.isatty():
            yield
            return
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[pages]} pages, {task.fields[rate]}, {task.fields[failed]} failed"),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
            self._bar = bar
            self._task = bar.add_task("files", total=None, pages=0, rate="", failed=0)
            if count is not None:
                threading.Thread(target=self._set_total, args=(count,), daemon=True).start()
            yield
            self._bar = None

    def end(self, totals: Totals) -> None:
        """Tell how the run has ended.

        Raises:
            SomeImagesFailedError: pages failed, in this run or in earlier ones.
        """
        self.tell(pages_in_results=totals.pages, failed_in_results=totals.failed)
        if not totals.failed:
            return
        earlier = [f for f in totals.failures if (f["path"], f["page"]) not in self._shown]
        for failure in earlier[:_MOST_FAILURES_SHOWN]:
            self._tell_failure("failed_earlier", failure["path"], failure["page"], failure["error"])
        raise SomeImagesFailedError(
            f"{totals.failed} of {totals.pages} pages failed",
            remedy="the others have their results; summary.json lists the failures, --retry-failed tries them again",
        )

    def tell_left_out(self, left_out: Counter[str]) -> None:
        """Tell how many files of folders were left out, by their endings."""
        if not left_out:
            return
        self.event("left_out", files=left_out)
        if self._in_words:
            kinds = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in left_out.most_common(8))
            self._say(f"files left out by their names: {kinds}")

    def ended(self, record: PageRecord) -> None:
        """As `Listener.ended`."""
        self.done += record.status == "done"
        self.failed += record.status == "failed"
        if record.status == "failed":
            self._shown.add((record.path, record.page))
            self._tell_failure("failed", record.path, record.page, record.error)
        elif self._as_json:
            self.event("page", path=record.path, page=record.page, instances=record.instances, seconds=record.seconds)
        if record.truncated:
            logging.getLogger(__name__).debug("%s, page %d: truncated", record.path, record.page)
        self._advance(by=record.is_last)

    def skipped(self, scan: Scan) -> None:
        """As `Listener.skipped`."""
        del scan
        self.skipped_scans += 1
        self._advance(by=True)

    def waiting(self) -> None:
        """As `Listener.waiting`."""
        self._advance(by=False)

    def tell(self, **more: int) -> None:
        """Tell what this run has done; `more` is for the JSON log."""
        counts = {"done": self.done, "failed": self.failed, "files_unchanged": self.skipped_scans}
        self.event("end", **counts, **more)
        if self._in_words:
            seconds = time.monotonic() - self._started
            self._say(
                f"{self.done} pages done in {seconds:.0f} s, {self.failed} failed, {self.skipped_scans} files unchanged"
            )

    def event(self, kind: str, **fields: Any) -> None:
        """Write a line of the JSON log, if that is wanted."""
        if self._as_json:
            sys.stderr.write(json.dumps({"time": round(time.time(), 3), "event": kind, **fields}) + "\n")

    def _tell_failure(self, kind: str, path: object, page: object, error: object) -> None:
        if self._as_json:
            self.event(kind, path=path, page=page, error=error)
        else:
            self._say(f"{kind.replace('_', ' ')}: {path}, page {page}: {error}")

    def _say(self, text: str) -> None:
        words = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        sys.stderr.write(f"dbcpu: {words}\n")  # not by click, which would write across the bar

    def _set_total(self, count: Callable[[], int]) -> None:
        total = count()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)

    def _advance(self, *, by: bool) -> None:
        pages = self.done + self.failed
        now = time.monotonic()
        rate = f"{pages / max(now - self._started, 1e-9):.2f} pages/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=by, pages=pages, rate=rate, failed=self.failed)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            if self._as_json:
                self.event("progress", done=self.done, failed=self.failed, skipped=self.skipped_scans)
            elif self._in_words:
                self._say(f"{pages} pages, {rate}, {self.failed} failed, {self.skipped_scans} files unchanged")
