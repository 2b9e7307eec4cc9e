"""What a run works on: files, folders, patterns and lists of them, one after the other, never all in memory."""

from __future__ import annotations

import glob
import os
import select
import stat
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from dbcpu.batch.addresses import as_path, is_address, words
from dbcpu.batch.records import Scan
from dbcpu.batch.remote import RemoteEntry, in_parallel, is_remote_folder, list_remote, remote_matches, remote_scan
from dbcpu.errors import UsageError
from dbcpu.files import PICTURE_ENDINGS, is_same_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbcpu.batch.shards import Shard

_BYTES_AT_ONCE = 1 << 16  # of a list; more than any path has
_SECONDS_TO_WAIT = 0.05  # for more of a list, before others have their turn
_ENDINGS = PICTURE_ENDINGS | {".pdf"}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where scans come from.

    Folders are read recursively, first the files of each in the order of their names, then its folders likewise; hidden
    entries, links to folders and the results' own folder are left out. Files that are named one by one are taken
    whatever their ending.

    Attributes:
        given: files, folders, and patterns such as `scans/**/*.tif`; each may be an address such as `s3://bucket/scans`.
        lists: open files with a path a line (or each ended by a null byte), read as they are needed.
        include: patterns; of a folder's files, only those whose name or path in it matches one are taken, whatever
            their ending. None takes those with the ending of a picture or a PDF.
        exclude: patterns; files and folders that match one are left out.
        results: folder that is never read.
        shard: which of the scans are read; None reads all of them.
        left_out: how many files of folders were left out, by their endings; filled while the scans are read.
    """

    given: Sequence[str] = ()
    lists: Sequence[BinaryIO] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    results: Path | str
    shard: Shard | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Refuse what is not there, before the work begins.

        Raises:
            UsageError: a file or folder that is named does not exist, or it, or the folder where a pattern begins, is
                that of the results.
        """
        for given in self.given:
            if is_address(given):
                self._check_address(given)
                continue
            if self._is_results(_folder_of(given)):
                raise UsageError("the results would be written between the scans", where=given, remedy="name another")
            if not os.path.lexists(given) and not (
                _is_pattern(given) and next(glob.iglob(given, recursive=True), None)
            ):
                raise UsageError("no such file or folder", where=given)

    def scans(self) -> Iterator[Scan]:
        """Yield every scan, in the order of what was given; a file that is met again is yielded again."""
        return (scan for scan in self.arrivals() if scan is not None)

    def arrivals(self) -> Iterator[Scan | None]:
        """Yield every scan, as `scans`, and None now and then while a list is waited for."""
        return (scan for scan in self._all_scans() if scan is None or self.shard is None or scan.name in self.shard)

    def _all_scans(self) -> Iterator[Scan | None]:
        common = self._common_folder()
        for given in self.given:
            if is_address(given):
                yield from self._at_address(given, common)
            elif os.path.isdir(given):
                yield from self._folder(given, _relative(given, common))
            elif os.path.lexists(given):
                yield self._file(given, _relative(given, common))
            else:
                yield from self._matches(given, common)
        for stream in self.lists:
            here = os.getcwd()
            for kind, paths in groupby(_paths_of(stream), lambda path: path and is_address(path)):
                named = ((path, _relative(path, here)) for path in paths if path is not None)
                if kind is None:
                    yield from (None for _ in paths)
                else:
                    yield from in_parallel(remote_scan, named) if kind else (self._file(*pair) for pair in named)

    def _matches(self, pattern: str, common: str) -> Iterator[Scan]:
        """Yield what a pattern stands for in a shell; with `**`, folders only if nothing else matches."""
        paths = sorted(glob.iglob(pattern, recursive=True))
        takes_folders = "**" not in pattern or all(map(os.path.isdir, paths))
        read: set[str] = set()
        for path in paths:
            if self._is_passed_over(path, pattern):
                continue
            if not os.path.isdir(path):
                yield self._file(path, _relative(path, common))
            elif takes_folders and read.isdisjoint(map(str, Path(path).parents)):  # which have it already
                read.add(str(Path(path)))
                yield from self._folder(path, _relative(path, common))

    def _check_address(self, given: str) -> None:
        if self._is_results(_folder_of(given)):
            raise UsageError("the results would be written between the scans", where=given, remedy="name another")
        try:
            if not _is_pattern(given):
                is_remote_folder(given)
            elif not remote_matches(given):
                raise FileNotFoundError
        except FileNotFoundError:
            raise UsageError("no such file or folder", where=given) from None
        except OSError as error:
            raise UsageError(f"cannot be looked at: {words(error)}", where=given) from error

    def _at_address(self, given: str, common: str) -> Iterator[Scan]:
        if _is_pattern(given):
            for address, info in remote_matches(given):
                if not self._is_passed_over(address, given):
                    yield self._file(address, _relative(address, common), info)
        elif is_remote_folder(given):
            yield from self._folder(given, _relative(given, common))
        else:
            yield self._file(given, _relative(given, common))

    def count(self) -> int:
        """Return how many scans there are, by listing them once more; lists are left out."""
        return sum(1 for _ in replace(self, lists=(), left_out=Counter()).scans())

    def _common_folder(self) -> str:
        """Return the folder that the names of results are relative to."""
        folders = []
        for given in self.given:
            if _is_pattern(given):
                folders.append(_absolute(_folder_of(given)))
            elif is_remote_folder(given) if is_address(given) else os.path.isdir(given):
                folders.append(_absolute(given))
            else:
                folders.append(os.path.dirname(_absolute(given)))
        return os.path.commonpath(folders) if folders else os.getcwd()

    def _folder(self, folder: str, name: str) -> Iterator[Scan]:
        waiting = [(folder, name, "")]  # entries that are folders, the next one last; `inner` is relative to `folder`
        while waiting:
            path, name, inner = waiting.pop()
            try:
                ordered = sorted(_entries(path), key=lambda entry: entry.name)
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
                    info = entry.info if isinstance(entry, RemoteEntry) else None
                    yield self._file(entry.path, entry_name, info)
                elif self.shard is None or entry_name in self.shard:
                    self.left_out[PurePosixPath(entry.name).suffix.lower()] += 1
            waiting += reversed(folders)

    def _file(self, path: str, name: str, info: dict[str, Any] | None = None) -> Scan:
        if is_address(path):
            return remote_scan(path, name, info)
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

    def _is_passed_over(self, path: str, pattern: str) -> bool:
        """Whether a match of a pattern is excluded, or lies in the results, which the pattern leads into."""
        outermost = _folder_of(pattern)
        least = 0 if outermost == os.curdir else len(outermost)
        folder = path
        while len(folder) > least:
            if self._is_results(folder):
                return True
            folder = os.path.dirname(folder.rstrip("/"))
        return self._is_excluded(path)

    def _is_results(self, folder: str) -> bool:
        if is_address(folder) or is_address(self.results):
            return is_address(folder) and folder.rstrip("/") == str(self.results).rstrip("/")
        return is_same_file(folder, self.results)


def root_of(scan: Scan) -> str:
    """Return what stands before the name of a scan in its path; one string for all that share it."""
    return sys.intern(_absolute(scan.path).replace(os.sep, "/").removesuffix(scan.name))


def _matches(inner: str, patterns: Sequence[str]) -> bool:
    name = inner.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) or fnmatchcase(inner, pattern) for pattern in patterns)


def _relative(path: str, folder: str) -> str:
    """Return the name of a path in the tree of the results: relative to `folder` inside it, elsewhere from the root."""
    absolute = _absolute(path)
    relative = os.path.relpath(absolute, folder)
    if relative == os.pardir or relative.startswith(os.pardir + os.sep):
        relative = os.path.splitdrive(absolute)[1].lstrip(os.sep)
    return "" if relative == os.curdir else relative.replace(os.sep, "/")


def _absolute(path: str) -> str:
    return as_path(path) if is_address(path) else os.path.abspath(path)


def _entries(folder: str) -> Sequence[os.DirEntry[str] | RemoteEntry]:
    """Return what is in a folder.

    Raises:
        OSError: it cannot be listed.
    """
    if is_address(folder):
        return list_remote(folder)
    with os.scandir(folder) as entries:
        return list(entries)


def _is_pattern(given: str) -> bool:
    if is_address(given):
        return glob.has_magic(given) and not given.startswith(("http://", "https://"))
    return glob.has_magic(given) and not os.path.lexists(given)


def _folder_of(given: str) -> str:
    """Return the folder that every match of a pattern lies in; what is no pattern is its own."""
    if not _is_pattern(given):
        return given
    parts = []
    for part in given.split(os.sep)[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return os.sep.join(parts) or (os.sep if given.startswith(os.sep) else os.curdir)


def _paths_of(stream: Any) -> Iterator[str | None]:
    """Yield the paths of a list: its lines, or what ends with null bytes where the first piece with an end has one.

    None comes instead while the list is waited for.
    """
    end, begun = b"", b""
    while True:
        while not _has_arrived(stream):
            yield None
        piece = stream.read1(_BYTES_AT_ONCE)
        if not piece:
            break
        begun += piece
        end = end or next((byte for byte in (b"\0", b"\n") if byte in piece), b"")
        if end:
            *paths, begun = begun.split(end)
            yield from filter(None, (_path(path, end) for path in paths))
    if last := _path(begun, b"\n"):
        yield last


def _has_arrived(stream: BinaryIO) -> bool:
    """Whether a stream can be read without waiting for long, as far as that can be told."""
    try:
        return bool(select.select([stream], [], [], _SECONDS_TO_WAIT)[0])
    except (OSError, ValueError):  # it is in memory; or this is Windows, where only sockets can be asked
        return True


def _path(content: bytes, end: bytes) -> str:
    return os.fsdecode(content if end == b"\0" else content.rstrip(b"\r\n"))
