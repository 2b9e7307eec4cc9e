"""A run: scans in, records out, and a folder of results that can be trusted whenever it stops."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dbcpu.batch.records import Unchanged
from dbcpu.batch.report import json_name, sums, write_reports
from dbcpu.batch.shards import begin_shard, end_shard, unmerged
from dbcpu.batch.sources import root_of
from dbcpu.batch.store import MANIFEST
from dbcpu.batch.work import remove_page
from dbcpu.errors import OutputError, UsageError
from dbcpu.files import is_same_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbcpu.batch.local import Engine
    from dbcpu.batch.manifest import Manifest
    from dbcpu.batch.records import Outcome, PageRecord, Scan, Task
    from dbcpu.batch.report import Totals
    from dbcpu.batch.sources import Sources
    from dbcpu.batch.store import Results
    from dbcpu.writers.page_files import PictureFormat


class Listener(Protocol):
    """Whoever wants to know how a run gets on."""

    def ended(self, record: PageRecord) -> None:
        """A page has ended."""

    def skipped(self, scan: Scan) -> None:
        """Nothing has to be done for a scan."""

    def waiting(self) -> None:
        """Nothing has happened for a while."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is to do.

    Attributes:
        force: do everything again.
        retry_failed: try again what failed in earlier runs.
        most_failures: pages that fail before the run stops; None for any number.
        run_formats: names of formats with one file for all pages.
        overlay: form of the overlays, None where there are none.
    """

    force: bool = False
    retry_failed: bool = False
    most_failures: int | None = None
    run_formats: tuple[str, ...] = ()
    overlay: PictureFormat | None = None


def run_batch(
    sources: Sources,
    store: Results,
    engine: Engine,
    options: RunOptions,
    listener: Listener,
    *,
    is_stopped: Callable[[], bool],
) -> Totals:
    """Detect the text of scans that have no results yet, and write the reports.

    Args:
        sources: of the scans.
        store: for the results, locked by this process.
        engine: that does the work; it is left open.
        options: what to do.
        listener: is told of every page.
        is_stopped: asked before each scan; after True, what is running ends and the run with it.

    Returns:
        Sums over all pages of the folder of results, those of earlier runs included; of a shard, over its own.

    Raises:
        OutputError: results, the manifest or the reports cannot be written.
        WorkerError: worker processes cannot be kept alive.
    """
    shard = sources.shard
    if shard is not None:
        begin_shard(store, shard, engine.facts, options.run_formats)
    elif unmerged(store):
        raise UsageError("there are shards to put together first", remedy="dbcpu batch merge RESULTS")
    manifest = store.open_manifest(f"{shard.folder}/{MANIFEST}" if shard else MANIFEST, engine.facts.fingerprint)
    run = _Run(sources, store, manifest, options, listener, is_stopped)
    try:
        for outcome in engine.run(run.tasks(), is_stopped=run.is_over):
            run.take(outcome)
    except BaseException:
        with contextlib.suppress(OutputError):  # the first error is the one to tell
            run.finish()
        raise
    else:
        run.finish()
        if shard is not None:
            if not run.is_over():
                end_shard(store, shard, engine.facts, options.run_formats, sources.left_out)
            return sums(manifest.records())
        return write_reports(
            store,
            manifest.records,
            engine.facts,
            run_formats=options.run_formats,
            overlay=options.overlay,
            left_out=sources.left_out,
        )
    finally:
        manifest.close()


class _Run:
    """The state of a run between the engine and the manifest."""

    def __init__(
        self,
        sources: Sources,
        store: Results,
        manifest: Manifest,
        options: RunOptions,
        listener: Listener,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._sources = sources
        self._store = store
        self._manifest = manifest
        self._options = options
        self._listener = listener
        self._is_stopped = is_stopped
        self._failures = 0
        self._roots: dict[str, str] = {}  # of the scans that were met, by their names

    def tasks(self) -> Iterator[Task | None]:
        """Yield what has to be done, None where that is not known yet; what cannot be, is recorded at once."""
        for scan in self._sources.arrivals():
            if self.is_over():
                return
            if scan is None:
                yield None
                continue
            if self._was_met(scan):
                continue
            task = self._manifest.plan(
                scan,
                force=self._options.force,
                retry_failed=self._options.retry_failed,
                has_results=lambda results: self._store.exists(json_name(results)),
            )
            if task is None:
                self._listener.skipped(scan)
            elif scan.error is not None:
                self.take(self._manifest.failed(scan))
            else:
                yield task

    def _was_met(self, scan: Scan) -> bool:
        """Whether a scan was given earlier in this run; another one under its name would have no place."""
        root = root_of(scan)
        known = self._roots.get(scan.name)
        if known is None:
            self._roots[scan.name] = root
            return False
        if known != root and not is_same_file(known + scan.name, root + scan.name):
            raise UsageError(
                f"would get the same results as {known}{scan.name}: {json_name(scan.name)}",
                where=scan.path,
                remedy="name another folder of results for one of them",
            )
        return True

    def take(self, outcome: Outcome | None) -> None:
        """Remember what the engine tells."""
        self._manifest.keep()
        if outcome is None:
            self._listener.waiting()
        elif isinstance(outcome, Unchanged):
            self._manifest.touch(outcome.scan)
            self._listener.skipped(outcome.scan)
        else:
            self._manifest.add(outcome)
            self._failures += outcome.status == "failed"
            self._listener.ended(outcome)

    def finish(self) -> None:
        """Remove what is no longer true, and put the manifest in order."""
        for results in self._manifest.stale():
            remove_page(self._store, results)
        self._manifest.finish()

    def is_over(self) -> bool:
        """Whether nothing more is to be begun: the user wants an end, or enough pages have failed."""
        most = self._options.most_failures
        return self._is_stopped() or (most is not None and self._failures >= most)
