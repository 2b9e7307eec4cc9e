"""Where the files of a run go."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Protocol

from dbcpu.batch.addresses import is_address
from dbcpu.batch.lock import check_unlocked, locked
from dbcpu.batch.manifest import Manifest
from dbcpu.errors import OutputError
from dbcpu.files import complete_file, make_folder, write_file
from dbcpu.writers.names import seen_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

OWN = ".dbcpu"  # folder of what only dbcpu needs
MANIFEST, SUMMARY, SHEET = "manifest.jsonl", "summary.json", "index.html"


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

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, those that are there.

        Raises:
            OutputError: one is there and cannot be removed.
        """

    def picture_from(self, name: str, picture: str) -> str:
        """Return the path of a picture for readers of a file of the store."""


class Results(Store, Protocol):
    """A store as the process sees that runs the others."""

    def make(self) -> None:
        """Make the place, if it is missing.

        Raises:
            OutputError: it cannot be made, or not be written to.
        """

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold a lock for a block.

        Raises:
            OutputError: another run holds it, or it cannot be written.
        """

    def check_unlocked(self, name: str) -> None:
        """Refuse to go on while another run holds a lock.

        Raises:
            OutputError: it does, or it cannot be looked at.
        """

    def clear(self) -> None:
        """Clear away what killed processes have left half done; with the lock held and nothing being written.

        Raises:
            OutputError: the folder that such files are in cannot be made anew.
        """

    def open_manifest(self, name: str, settings: str) -> Manifest:
        """Return a manifest, as `Manifest`."""

    def manifest_lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a manifest, of which nothing else is known; none where it is missing.

        Raises:
            OutputError: it cannot be read.
        """

    def write_text(self, name: str, pieces: Iterable[str]) -> None:
        """Write a file that need not fit in memory, as `write`.

        Raises:
            OutputError: it cannot be written.
        """

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders in a folder, in order; none where it is missing."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it is there.

        Raises:
            OutputError: it cannot be removed.
        """


class FolderStore:
    """A folder; files are written into a folder of this run in it and then moved.

    Attributes:
        folder: for the files.
        own: in it, what is this run's alone.
    """

    def __init__(self, folder: Path, *, own: str = OWN) -> None:
        self.folder = folder
        self.own = own
        self._partial = folder / own / "partial"
        self._made: set[Path] = set()

    def make(self) -> None:
        """As `Results.make`."""
        make_folder(self.folder)
        make_folder(self.folder / self.own)

    def locked(self, name: str) -> AbstractContextManager[None]:
        """As `Results.locked`."""
        return locked(self.folder / name, what=self.folder)

    def check_unlocked(self, name: str) -> None:
        """As `Results.check_unlocked`."""
        check_unlocked(self.folder / name, what=self.folder)

    def clear(self) -> None:
        """As `Results.clear`."""
        shutil.rmtree(self._partial, ignore_errors=True)
        make_folder(self._partial)

    def open_manifest(self, name: str, settings: str) -> Manifest:
        """As `Results.open_manifest`."""
        return Manifest(self.folder / name, settings, partial_in=self._partial)

    def manifest_lines(self, name: str) -> Iterator[bytes]:
        """As `Results.manifest_lines`."""
        path = self.folder / name
        try:
            with path.open("rb") as stream:
                yield from stream
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot be read back: {error.strerror or error}", where=path) from error

    def write_text(self, name: str, pieces: Iterable[str]) -> None:
        """As `Results.write_text`."""
        path = self.folder / name
        with (
            complete_file(path, partial_in=self._partial) as partial,
            partial.open("w", encoding="utf-8", newline="\n") as stream,
        ):
            stream.writelines(pieces)

    def folders(self, name: str) -> list[str]:
        """As `Results.folders`."""
        try:
            return sorted(path.name for path in (self.folder / name).iterdir() if path.is_dir())
        except OSError:
            return []

    def remove_folder(self, name: str) -> None:
        """As `Results.remove_folder`; a folder that is empty then goes too."""
        path = self.folder / name
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot be removed: {error.strerror or error}", where=path) from error
        with contextlib.suppress(OSError):
            path.parent.rmdir()

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

    def remove(self, names: Iterable[str]) -> None:
        """As `Store.remove`; a folder that is empty then goes too."""
        for name in names:
            path = self.folder / name
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise OutputError(f"cannot be removed: {error.strerror or error}", where=path) from error
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            self._made.discard(path.parent)

    def picture_from(self, name: str, picture: str) -> str:
        """As `Store.picture_from`: relative to the folder of the file; addresses stay as they are."""
        if is_address(picture):
            return picture
        return seen_from(self.folder / name, picture)
