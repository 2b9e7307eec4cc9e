"""What a run works on: files, folders, patterns and lists of them, one after the other, never all in memory."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from dbcpu.batch.records import Scan
from dbcpu.errors import UsageError
from dbcpu.files import PICTURE_ENDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ENDINGS = PICTURE_ENDINGS | {".pdf"}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where scans come from.

    Folders are read recursively, first the files of each in the order of their names, then its folders likewise; hidden
    entries, links to folders and the results' own folder are left out. Files that are named one by one are taken
    whatever their ending.

    Attributes:
        given: files, folders, and patterns such as `scans/**/*.tif`.
        lists: open files with a path a line (or each ended by a null byte), read as they are needed.
        include: patterns; of a folder's files, only those whose name or path in it matches one are taken, whatever
            their ending. None takes those with the ending of a picture or a PDF.
        exclude: patterns; files and folders that match one are left out.
        results: folder that is never read.
        left_out: how many files of folders were left out, by their endings; filled while the scans are read.
    """

    given: Sequence[str] = ()
    lists: Sequence[BinaryIO] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    results: Path
    left_out: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Refuse what is not there, before the work begins.

        Raises:
            UsageError: a file or folder that is named does not exist, or is the folder of the results.
        """
        for given in self.given:
            if Path(given).is_dir() and self._is_results(given):
                raise UsageError("the results would be written between the scans", where=given, remedy="name another")
            if not os.path.lexists(given) and not (glob.has_magic(given) and next(glob.iglob(given), None)):
                raise UsageError("no such file or folder", where=given)

    def scans(self) -> Iterator[Scan]:
        """Yield every scan, in the order of what was given; a file that is met again is yielded again."""
        common = self._common_folder()
        for given in self.given:
            if os.path.isdir(given):
                yield from self._folder(given, _relative(given, common))
            elif os.path.lexists(given):
                yield self._file(given, _relative(given, common))
            else:
                for path in sorted(glob.iglob(given, recursive=True)):
                    if not os.path.isdir(path) and not self._is_excluded(path):
                        yield self._file(path, _relative(path, common))
        for stream in self.lists:
            for path in _paths_of(stream):
                yield self._file(path, _relative(path, os.getcwd()))

    def count(self) -> int:
        """Return how many scans there are, by listing them once more; lists are left out."""
        return sum(1 for _ in replace(self, lists=(), left_out=Counter()).scans())

    def _common_folder(self) -> str:
        """Return the folder that the names of results are relative to."""
        folders = []
        for given in self.given:
            absolute = os.path.abspath(given)
            if glob.has_magic(given) and not os.path.lexists(given):
                absolute = os.path.abspath(_fixed_part(given))
            elif not os.path.isdir(given):
                absolute = os.path.dirname(absolute)
            folders.append(absolute)
        return os.path.commonpath(folders) if folders else os.getcwd()

    def _folder(self, folder: str, name: str) -> Iterator[Scan]:
        waiting = [(folder, name, "")]  # entries that are folders, the next one last; `inner` is relative to `folder`
        while waiting:
            path, name, inner = waiting.pop()
            try:
                with os.scandir(path) as entries:
                    ordered = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                what = f"the folder cannot be read: {error.strerror or error}"
                yield Scan(path=path, name=name or ".", error=what)
                continue
            folders = []
            for entry in ordered:
                entry_name = f"{name}/{entry.name}" if name else entry.name
                entry_inner = f"{inner}/{entry.name}" if inner else entry.name
                if entry.name.startswith(".") or self._is_excluded(entry_inner):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if not self._is_results(entry.path):
                        folders.append((entry.path, entry_name, entry_inner))
                elif self._is_wanted(entry_inner) and not (entry.is_symlink() and os.path.isdir(entry.path)):
                    yield self._file(entry.path, entry_name)
                else:
                    self.left_out[PurePosixPath(entry.name).suffix.lower()] += 1
            waiting += reversed(folders)

    def _file(self, path: str, name: str) -> Scan:
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            what = "no such file" if missing else f"cannot be looked at: {getattr(error, 'strerror', None) or error}"
            return Scan(path=path, name=name, error=what)
        problem = None
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            problem = "a folder, not a picture" if stat.S_ISDIR(status.st_mode) else "not a file of bytes"
        return Scan(path=path, name=name, size=status.st_size, mtime_ns=status.st_mtime_ns, error=problem)

    def _is_wanted(self, inner: str) -> bool:
        if self.include:
            return _matches(inner, self.include)
        return PurePosixPath(inner).suffix.lower() in _ENDINGS

    def _is_excluded(self, inner: str) -> bool:
        return _matches(inner, self.exclude)

    def _is_results(self, folder: str) -> bool:
        try:
            return os.path.samefile(folder, self.results)
        except OSError:
            return False


def _matches(inner: str, patterns: Sequence[str]) -> bool:
    name = inner.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) or fnmatchcase(inner, pattern) for pattern in patterns)


def _relative(path: str, folder: str) -> str:
    """Return the name of a path in the tree of the results: relative to `folder` inside it, elsewhere from the root."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute, folder)
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        relative = os.path.splitdrive(absolute)[1].lstrip(os.sep)
    return "" if relative == os.curdir else relative.replace(os.sep, "/")


def _fixed_part(pattern: str) -> str:
    """Return the folder that every match of a pattern lies in."""
    parts = []
    for part in pattern.split(os.sep)[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return os.sep.join(parts) or (os.sep if pattern.startswith(os.sep) else os.curdir)


def _paths_of(stream: BinaryIO) -> Iterator[str]:
    """Yield the paths of a list, by lines, or by null bytes where the first line has one."""
    for line in stream:
        for path in line.rstrip(b"\r\n").split(b"\0"):
            if path:
                yield os.fsdecode(path)
