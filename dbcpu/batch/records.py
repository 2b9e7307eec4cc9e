"""What a run works on and what it remembers: scans, tasks, records."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A file to find text in.

    Attributes:
        path: to read it from.
        name: in the tree of the results: relative, `/` between its parts, the file's ending included.
        size: in bytes.
        mtime_ns: when it was changed last, in nanoseconds.
        version: what an object store calls this content; None elsewhere.
        error: why it cannot even be looked at, such as a folder that may not be read; None as a rule.
    """

    path: str
    name: str
    size: int = 0
    mtime_ns: int = 0
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A scan, or some of its pages, to be worked on.

    Attributes:
        scan: the file.
        first_page: to start at, from 1.
        last_page: to end at; None is that of the file.
        page_count: of the file, where its pages can be read in any order; None where that isn't known.
        done_pages: which are finished already, and need no work.
        sha256: of the file, if it is known; None is computed.
        done_for_sha256: what the file's content must be for `done_pages` to hold, where its time stamp is new.
        is_complete: whether `done_pages` are all pages of that content.
        replaces: whether files of an earlier run may be in the place of those that it makes.
        failure: record of its first page that no process survives: it is not tried again, only those after it are.
    """

    scan: Scan
    first_page: int = 1
    last_page: int | None = None
    page_count: int | None = None
    done_pages: frozenset[int] = frozenset()
    sha256: str | None = None
    done_for_sha256: str | None = None
    is_complete: bool = False
    replaces: bool = False
    failure: PageRecord | None = None

    def next_page(self, page: int) -> int:
        """Return the first page from `page` on that is not done; of content that may have changed, none is."""
        while self.done_for_sha256 is None and page in self.done_pages:
            page += 1
        return page

    def told(self, outcome: Outcome) -> Task:
        """Return the task after an outcome of it, which tells whether the file's content is still the same."""
        if self.done_for_sha256 is None:
            return self
        done = self.done_pages if isinstance(outcome, Unchanged) else frozenset()
        return dataclasses.replace(self, done_pages=done, done_for_sha256=None)


@dataclass(frozen=True, kw_only=True)
class PageRecord:
    """What became of a page: a line of the manifest.

    Attributes:
        path: name of its scan in the tree of the results.
        page: its number in the file, from 1; of a file that cannot be read at all, 1.
        is_last: whether no page follows, or none that can be reached.
        size: of the file, in bytes.
        mtime_ns: of the file.
        version: of the file, in an object store.
        sha256: of the file; None where it could not be read.
        status: "done", or "failed".
        instances: how many were found.
        lowest_score: of the instances; None where there are none.
        truncated: whether the candidate limit cut.
        results: base of the names of its files, relative to the folder of the results.
        seconds: that the page took, from its first byte to its last file.
        settings: fingerprint of the model and the settings.
        error: why it failed.
    """

    path: str
    page: int
    is_last: bool = True
    size: int
    mtime_ns: int
    version: str | None = None
    sha256: str | None = None
    status: Status
    instances: int = 0
    lowest_score: float | None = None
    truncated: bool = False
    results: str | None = None
    seconds: float = 0.0
    settings: str
    error: str | None = None

    def line(self) -> str:
        """Return the record as a line of JSON; names that are no UTF-8 come out escaped."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> PageRecord:
        """Return the record that a line holds.

        Raises:
            ValueError: it is no such line.
        """
        fields: Any = json.loads(line)
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """A file whose time stamp is new and whose content is that of its records."""

    scan: Scan


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Pages of a file that are left for other tasks, which may go on at any of them.

    Attributes:
        task: it was met in.
        first_page: that is left.
        page_count: of the file.
        sha256: of the file.
    """

    task: Task
    first_page: int
    page_count: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A task waits for its turn; the time does not count."""


Outcome = PageRecord | Unchanged
