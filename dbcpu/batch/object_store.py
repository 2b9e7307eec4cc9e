"""Results in an object store: no renaming and no appending there, so every write puts a whole object."""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcpu.batch.addresses import as_path, is_address, open_filesystem, words
from dbcpu.batch.object_lock import check_object_unlocked, object_locked
from dbcpu.batch.parted import PartedManifest
from dbcpu.batch.store import OWN, FolderStore
from dbcpu.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from dbcpu.batch.manifest import Manifest
    from dbcpu.batch.store import Results

_FOLDERS_REMEMBERED = 4
_REMOVED_AT_ONCE = 8
_BLOCK = 8 << 20  # bytes


def results_at(place: str, *, own: str = OWN) -> Results:
    """Return where results go: a folder, or an address such as `s3://bucket/results`.

    Args:
        place: path or address.
        own: as in `FolderStore`.

    Raises:
        UsageError: as `ObjectStore`.
    """
    place = place.removeprefix("file://")
    return ObjectStore(place) if is_address(place) else FolderStore(Path(place), own=own)


class ObjectStore:
    """Results under an address. A `Results`; it can be pickled, and each process makes its own connections.

    Attributes:
        address: where the results go, such as `s3://bucket/results`.

    Raises:
        UsageError: as `open_filesystem`; or nothing can be written there.
    """

    def __init__(self, address: str) -> None:
        if address.startswith(("http://", "https://")):
            raise UsageError("results cannot be written over http", where=address)
        self.address = address.rstrip("/")
        self._listed: OrderedDict[str, set[str]] = OrderedDict()
        open_filesystem(address)

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address, "_listed": OrderedDict()}

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return open_filesystem(self.address)  # not before it is needed: connections do not survive a fork

    def path(self, name: str) -> tuple[Any, str]:
        """Return the file system, and the path of a file in it."""
        filesystem, root = self._place
        return filesystem, f"{root.rstrip('/')}/{name}" if name else root

    def write(self, name: str, content: bytes) -> None:
        """As `Store.write`."""
        try:
            self.put(name, content)
        except Exception as error:
            raise self._error("could not be written", name, error) from error

    def put(self, name: str, content: bytes | Path, *, only_new: bool = False) -> None:
        """Put an object, whose content may be that of a file of this machine.

        Raises:
            Exception: any of the service, among them that there is one already where `only_new` forbids that.
        """
        filesystem, path = self.path(name)
        if not filesystem.async_impl:  # sftp and its like have folders, object stores have not
            filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
        if isinstance(content, bytes):
            filesystem.pipe_file(path, content, **({"mode": "create"} if only_new else {}))
        else:
            filesystem.put_file(str(content), path)
        self._listed.pop(posixpath.dirname(name), None)

    def read(self, name: str) -> bytes:
        """As `Store.read`."""
        filesystem, path = self.path(name)
        try:
            content: bytes = filesystem.cat_file(path)
        except Exception as error:
            raise self._error("cannot be read back", name, error) from error
        return content

    def exists(self, name: str) -> bool:
        """As `Store.exists`; what other machines have written since a folder was last asked for may be missed."""
        folder, _, last = name.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = {posixpath.basename(info["name"]) for info in self._entries(folder, "file")}
            if len(self._listed) > _FOLDERS_REMEMBERED:
                self._listed.popitem(last=False)
        return last in self._listed[folder]

    def remove(self, names: Iterable[str]) -> None:
        """As `Store.remove`."""
        with ThreadPoolExecutor(_REMOVED_AT_ONCE) as pool:
            for _ in pool.map(self._remove, names):
                pass

    def _remove(self, name: str) -> None:
        filesystem, path = self.path(name)
        try:
            filesystem.rm_file(path)  # `rm` would take a name with a star for a pattern
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._error("cannot be removed", name, error) from error
        self._listed.pop(posixpath.dirname(name), None)

    def picture_from(self, name: str, picture: str) -> str:
        """As `Store.picture_from`: relative in the same bucket, otherwise as it was given."""
        if not is_address(picture):
            return picture
        ours, theirs = as_path(f"{self.address}/{name}"), as_path(picture)
        if ours.split("/")[:3] != theirs.split("/")[:3]:
            return picture
        return posixpath.relpath(theirs, posixpath.dirname(ours))

    def make(self) -> None:
        """As `Results.make`: the lock is the first object that is written."""

    def locked(self, name: str) -> AbstractContextManager[None]:
        """As `Results.locked`."""
        return object_locked(self, name)

    def check_unlocked(self, name: str) -> None:
        """As `Results.check_unlocked`."""
        check_object_unlocked(self, name)

    def clear(self) -> None:
        """As `Results.clear`: nothing is ever half done."""

    def open_manifest(self, name: str, settings: str) -> Manifest:
        """As `Results.open_manifest`."""
        return PartedManifest(self, name, settings)

    def manifest_lines(self, name: str) -> Iterator[bytes]:
        """As `Results.manifest_lines`."""
        for part in (name, *self.names(f"{name}.parts")):
            if self.exists(part):
                yield from self._lines(part)

    def _lines(self, name: str) -> Iterator[bytes]:
        filesystem, path = self.path(name)
        try:
            with filesystem.open(path, "rb", block_size=_BLOCK) as stream:
                yield from stream
        except Exception as error:
            raise self._error("cannot be read back", name, error) from error

    def write_text(self, name: str, pieces: Iterable[str]) -> None:
        """As `Results.write_text`."""
        with tempfile.TemporaryDirectory(prefix="dbcpu-") as folder:
            local = Path(folder) / "whole"
            with local.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(pieces)
            self.write_file(name, local)

    def write_file(self, name: str, local: Path) -> None:
        """Write the content of a file of this machine, as `Store.write`.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self.put(name, local)
        except Exception as error:
            raise self._error("could not be written", name, error) from error

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, in order; none where it is missing."""
        return sorted(f"{folder}/{posixpath.basename(info['name'])}" for info in self._entries(folder, "file"))

    def folders(self, name: str) -> list[str]:
        """As `Results.folders`."""
        return sorted(posixpath.basename(info["name"].rstrip("/")) for info in self._entries(name, "directory"))

    def remove_folder(self, name: str) -> None:
        """As `Results.remove_folder`."""
        for folder in self.folders(name):
            self.remove_folder(f"{name}/{folder}")
        self.remove(self.names(name))
        filesystem, path = self.path(name)
        if not filesystem.async_impl:
            with contextlib.suppress(OSError):
                filesystem.rmdir(path)

    def _entries(self, folder: str, kind: str) -> list[dict[str, Any]]:
        filesystem, path = self.path(folder)
        try:
            listed = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._error("cannot be listed", folder, error) from error
        return [info for info in listed if info["type"] == kind and info["name"].rstrip("/") != path.rstrip("/")]

    def _error(self, what: str, name: str, error: Exception) -> OutputError:
        return OutputError(f"{what}: {words(error)}", where=f"{self.address}/{name}")
