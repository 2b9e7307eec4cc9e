"""What a folder of results remembers: one line per page, appended as pages end, sorted when a run ends."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from dbcpu.batch.records import PageRecord, Task
from dbcpu.errors import OutputError
from dbcpu.files import complete_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dbcpu.batch.records import Scan

logger = logging.getLogger(__name__)


class _Line(NamedTuple):
    """Where the record of a page stands in the file, and what is asked of it most."""

    offset: int
    is_done: bool
    results: str | None


@dataclass(eq=False, slots=True)
class _State:
    """What is known of a scan."""

    size: int
    mtime_ns: int
    version: str | None
    sha256: str | None
    settings: str
    last_page: int | None = None
    pages: dict[int, _Line] = field(default_factory=dict)

    @property
    def is_failure(self) -> bool:
        """Whether nothing was found of it."""
        return not any(line.is_done for line in self.pages.values())

    def fits(self, record: PageRecord) -> bool:
        """Whether a record is of the same content and settings; a page that failed may not know the content."""
        same_content = self.sha256 == record.sha256 or self.sha256 is None or record.sha256 is None
        return (self.size, self.settings) == (record.size, record.settings) and same_content


class Manifest:
    """The manifest of a folder of results.

    It is held in memory as one small entry a page; the records themselves stay in the file.

    Args:
        path: of the file; it is created where it is missing, and a last line that a killed run left half is cut off.
        settings: fingerprint of the model and the settings of this run.
        partial_in: as in `complete_file`.

    Raises:
        OutputError: the file cannot be read or written.
    """

    def __init__(self, path: Path, settings: str, *, partial_in: Path | None = None) -> None:
        self._path = path
        self._partial_in = partial_in
        self._settings = settings
        self._states: dict[str, _State] = {}
        self._order: dict[str, int] = {}
        self._stale: set[str] = set()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self._end = self._load()
        except OSError as error:
            raise self._error(error) from error

    def plan(self, scan: Scan, *, force: bool, retry_failed: bool, has_results: Callable[[str], bool]) -> Task | None:
        """Return what has to be done for a scan, None for nothing; call it once for each, in their order.

        Args:
            scan: as it is now.
            force: whether everything is done again.
            retry_failed: whether pages that failed are tried again.
            has_results: whether the files of a page are still there, by `PageRecord.results`.
        """
        self._order.setdefault(scan.name, len(self._order))
        state = self._states.get(scan.name)
        if state is None:
            return Task(scan=scan)
        if force or state.settings != self._settings or state.size != scan.size or scan.error is not None:
            return Task(scan=scan, replaces=True)
        settled = {
            page
            for page, line in state.pages.items()
            if (has_results(line.results or "") if line.is_done else not retry_failed)
        }
        is_complete = state.last_page is not None and len(settled) == state.last_page
        if (state.mtime_ns, state.version) != (scan.mtime_ns, scan.version):
            if state.sha256 is None:
                return Task(scan=scan, replaces=True)
            known = state.sha256
        elif is_complete:
            return None
        else:
            known = None
        return Task(
            scan=scan,
            done_pages=frozenset(settled),
            done_for_sha256=known,
            is_complete=is_complete,
            replaces=True,
        )

    def add(self, record: PageRecord) -> None:
        """Append a record.

        Raises:
            OutputError: there is no room, or no permission; the file is as it was.
        """
        content = record.line().encode()
        try:
            if os.pwrite(self._descriptor, content, self._end) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._descriptor, self._end)
            raise self._error(error) from error
        self._index(record, self._end)
        self._end += len(content)

    def keep(self) -> None:
        """Save what was added, where adding alone does not.

        Raises:
            OutputError: there is no room, or no permission.
        """

    def failed(self, scan: Scan) -> PageRecord:
        """Return the record of a scan that cannot even be looked at."""
        return PageRecord(
            path=scan.name,
            page=1,
            size=scan.size,
            mtime_ns=scan.mtime_ns,
            version=scan.version,
            status="failed",
            settings=self._settings,
            error=scan.error,
        )

    def touch(self, scan: Scan) -> None:
        """Take over the new time stamp of a scan whose content is the same.

        Raises:
            OutputError: there is no room, or no permission.
        """
        for record in list(self._read([scan.name])):
            self.add(replace(record, mtime_ns=scan.mtime_ns, version=scan.version))

    def stale(self) -> list[str]:
        """Return `PageRecord.results` of pages that are no more: a file got shorter, or unreadable."""
        return sorted(self._stale)

    def finish(self) -> None:
        """Sort the file by the order of the scans, one line per page.

        Scans that this run did not meet come last, in the order that folders are listed in. A folder that could not be
        read earlier is forgotten when this run has met what is in it.

        Raises:
            OutputError: there is no room, or no permission; the unsorted file stays.
        """
        failed = {name for name in self._states.keys() - self._order.keys() if self._states[name].is_failure}
        for name in self._order if failed else ():
            for folder in failed.intersection(map(str, PurePosixPath(name).parents)):
                self._states.pop(folder, None)
        unmet = len(self._order)
        names = sorted(self._states, key=lambda name: (self._order.get(name, unmet), _as_listed(name)))
        with complete_file(self._path, partial_in=self._partial_in) as partial, partial.open("wb") as stream:
            stream.writelines(record.line().encode() for record in self._read(names))
        os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_RDWR)
        self._states.clear()
        self._stale.clear()
        self._end = self._load()

    def records(self) -> Iterator[PageRecord]:
        """Yield the records in the order of the file; after `finish` each page has one."""
        with self._path.open("rb") as stream:
            for line in stream:
                yield PageRecord.from_line(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _load(self) -> int:
        """Index the file; returns where its last complete line ends."""
        end, damaged = 0, 0
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            stream.seek(0)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                try:
                    self._index(PageRecord.from_line(line), end)
                except ValueError:
                    damaged += 1
                end += len(line)
        os.ftruncate(self._descriptor, end)
        if damaged:
            logger.warning("%s: %d lines are no records; their pages are done again", self._path, damaged)
        return end

    def _index(self, record: PageRecord, offset: int) -> None:
        state = self._states.get(record.path)
        if state is None or not state.fits(record):
            if state is not None:
                self._stale |= {line.results for line in state.pages.values() if line.results is not None}
            state = _State(record.size, record.mtime_ns, record.version, record.sha256, record.settings)
            self._states[record.path] = state
        before = state.pages.get(record.page)
        if before is not None and before.results is not None:
            self._stale.add(before.results)
        if record.results is not None:
            self._stale.discard(record.results)
        state.sha256 = record.sha256 or state.sha256
        state.mtime_ns, state.version = record.mtime_ns, record.version
        state.pages[record.page] = _Line(offset, record.status == "done", record.results)
        if record.is_last:
            state.last_page = record.page
        elif state.last_page is not None and record.page >= state.last_page:
            state.last_page = None  # a page that failed could not see the pages after it

    def _read(self, names: Iterable[str]) -> Iterator[PageRecord]:
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            for name in names:
                for _, line in sorted(self._states[name].pages.items()):
                    stream.seek(line.offset)
                    yield PageRecord.from_line(stream.readline())

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"the manifest cannot be kept: {error.strerror or error}", where=self._path)


def _as_listed(name: str) -> tuple[tuple[bool, str], ...]:
    """Return what to sort names by, so that the files of a folder come before its folders."""
    *folders, file = name.split("/")
    return *((True, folder) for folder in folders), (False, file)
