"""Files on disk: those that are pictures, and new ones, which appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import zlib
from typing import TYPE_CHECKING

from dbcpu.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Of the files that are taken for pictures where nobody names them one by one; their content decides in the end.
PICTURE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jp2 .png .tif .tiff .webp .gif .bmp .avif .tga .ppm .pgm .pbm .pnm".split()  # noqa: SIM905
)


def check_target(path: Path, *, replace: bool) -> None:
    """Refuse a file that cannot be written, before the work for it is done.

    Args:
        path: of the new file.
        replace: whether an older one may be replaced.

    Raises:
        OutputError: it exists already or is a folder, or its folder does not exist or may not be entered.
    """
    try:
        exists = path.exists() or path.is_symlink()  # a link that leads nowhere is a file too
        if path.is_dir():
            raise OutputError("a folder", where=path, remedy="name a file with -o")
        if exists and not replace:
            raise OutputError(
                "exists already", where=path, remedy="give --force to replace it, or another name with -o"
            )
        if not path.parent.is_dir():
            raise OutputError("there is no such folder", where=path.parent)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", where=path) from None


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file that is there, and may be looked at."""
    try:
        return os.path.samefile(first, second)  # noqa: PTH121 - also of strings that are no valid path
    except (OSError, ValueError):
        return False


def check_other_file(path: Path, source: Path) -> None:
    """Refuse to write to `path` where it is `source`, the file that is read.

    Raises:
        UsageError: they are one file.
    """
    if is_same_file(path, source):
        raise UsageError("would replace the file it reads", where=path, remedy="name another one with -o")


@contextlib.contextmanager
def complete_file(path: Path, *, partial_in: Path | None = None) -> Iterator[Path]:
    """Give a temporary path; when the block ends without an error, it becomes `path`.

    Whatever stops the block, nothing half-written stays behind, and an older file at `path` is untouched until then.

    Args:
        path: of the new file.
        partial_in: folder of the temporary file, on the same file system; by default that of `path`. What a killed
            process leaves there is then easy to find.

    Raises:
        OutputError: writing failed: no room, no permission, no such folder.
    """
    # The name differs between threads, also of several machines that share a folder, and no glob of results matches it.
    # Cut, since names have a limit in bytes.
    machine = zlib.crc32(platform.node().encode())
    name = f".{path.name[:50]}.{machine:x}.{os.getpid()}.{threading.get_ident()}.partial"
    partial = path.with_name(name) if partial_in is None else partial_in / name
    try:
        partial.touch()
        mode = partial.stat().st_mode  # what the user's umask makes of a new file; safetensors makes private ones
        yield partial
        partial.chmod(mode)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"could not be written: {error.strerror or error}", where=path) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, *, partial_in: Path | None = None) -> None:
    """Write `content` to `path`, whole or not at all; `partial_in` as in `complete_file`.

    Raises:
        OutputError: writing failed.
    """
    with complete_file(path, partial_in=partial_in) as partial:
        partial.write_bytes(content)


def make_folder(path: Path) -> None:
    """Create the folder `path` and those above it, where they are missing.

    Raises:
        OutputError: it cannot be created, or is not a folder that can be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be created: {error.strerror or error}", where=path) from None
    if not os.access(path, os.W_OK):
        raise OutputError("the folder cannot be written to", where=path)
