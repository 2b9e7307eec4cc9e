"""Where the files of a run go."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Protocol

from dbcpu.errors import OutputError
from dbcpu.files import make_folder, write_file

if TYPE_CHECKING:
    from pathlib import Path


class Store(Protocol):
    """A tree of files; names are relative, with `/` between their parts."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, over an older one.

        Raises:
            OutputError: it cannot be written.
        """

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            OutputError: it cannot be read.
        """

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: it is there and cannot be removed.
        """

    def picture_from(self, name: str, picture: str) -> str:
        """Return the path of a picture for readers of a file of the store."""


class FolderStore:
    """A folder; files are written under `.dbcpu/partial` in it and then moved.

    Attributes:
        folder: for the files.
        lock: file that says which run works on it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / ".dbcpu" / "lock"
        self._partial = folder / ".dbcpu" / "partial"
        self._made: set[Path] = set()

    def make(self) -> None:
        """Make the folder, if it is missing.

        Raises:
            OutputError: it cannot be made, or not be written to.
        """
        make_folder(self.folder)
        make_folder(self.lock.parent)

    def prepare(self) -> None:
        """Make the folder of partial files, empty: what is in there, a killed run has left.

        Raises:
            OutputError: it cannot be made.
        """
        shutil.rmtree(self._partial, ignore_errors=True)
        make_folder(self._partial)

    def write(self, name: str, content: bytes) -> None:
        """As `Store.write`."""
        path = self.folder / name
        if path.parent not in self._made:
            make_folder(path.parent)
            self._made.add(path.parent)
        write_file(path, content, partial_in=self._partial)

    def read(self, name: str) -> bytes:
        """As `Store.read`."""
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            what = f"cannot be read back: {error.strerror or error}"
            raise OutputError(what, where=self.folder / name) from error

    def exists(self, name: str) -> bool:
        """As `Store.exists`."""
        return (self.folder / name).is_file()

    def remove(self, name: str) -> None:
        """As `Store.remove`; a folder that is empty then goes too."""
        path = self.folder / name
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise OutputError(f"cannot be removed: {error.strerror or error}", where=path) from error
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        self._made.discard(path.parent)

    def picture_from(self, name: str, picture: str) -> str:
        """As `Store.picture_from`: relative to the folder of the file."""
        return os.path.relpath(picture, (self.folder / name).parent)
