"""Scans in an object store or on a web server: listed folder by folder, read when their turn comes."""

from __future__ import annotations

import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from dbcpu.batch.addresses import address_of, modified_ns, open_filesystem, version, words
from dbcpu.batch.records import Scan
from dbcpu.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_HTTP = ("http://", "https://")
_IN_MEMORY = 64 << 20  # bytes of a file; larger ones are kept on disk while they are worked on
_BLOCK = 8 << 20  # bytes of a request
_REQUESTS_AT_ONCE = 32


@dataclass(frozen=True)
class RemoteEntry:
    """An entry of a folder, with what `os.DirEntry` tells of a local one.

    Attributes:
        name: in its folder.
        path: its address.
        info: what the server told with the listing.
    """

    name: str
    path: str
    info: dict[str, Any]

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        del follow_symlinks
        return bool(self.info["type"] == "directory")

    def is_symlink(self) -> bool:
        """Whether it is a link: never."""
        return False


def list_remote(address: str) -> list[RemoteEntry]:
    """Return the entries of a folder, without those of the folders in it.

    Raises:
        OSError: it cannot be listed.
    """
    filesystem, path = open_filesystem(address)
    try:
        listed = filesystem.ls(path, detail=True)
    except OSError:
        raise
    except Exception as error:  # services have errors of their own
        raise OSError(words(error)) from error
    # Consoles make an empty object with a slash at its end for a folder: that is listed as an entry without a name.
    own = path.rstrip("/")
    found = [info for info in listed if not info["name"].endswith("/") or info["type"] == "directory"]
    inner = [(info["name"].rstrip("/"), info) for info in found]
    return [RemoteEntry(n.rpartition("/")[2], address_of(filesystem, n), info) for n, info in inner if n != own]


def remote_scan(address: str, name: str, info: dict[str, Any] | None = None) -> Scan:
    """Return the scan at an address.

    Args:
        address: of the file.
        name: in the tree of the results.
        info: what a listing told; None asks the server.
    """
    try:
        if info is None:
            filesystem, path = open_filesystem(address)
            info = filesystem.info(path)
    except FileNotFoundError:
        return Scan(path=address, name=name, error="no such file")
    except Exception as error:
        return Scan(path=address, name=name, error=f"cannot be looked at: {words(error)}")
    problem = "a folder, not a picture" if info["type"] == "directory" and not address.startswith(_HTTP) else None
    return Scan(
        path=address,
        name=name,
        size=info.get("size") or 0,
        mtime_ns=modified_ns(info),
        version=version(info),
        error=problem,
    )


def is_remote_folder(address: str) -> bool:
    """Whether there is a folder at an address; never on a web server.

    Raises:
        OSError: the server cannot be asked, or has nothing there.
    """
    filesystem, path = open_filesystem(address)
    try:
        info = filesystem.info(path)
    except OSError:
        raise
    except Exception as error:
        raise OSError(words(error)) from error
    return bool(info["type"] == "directory") and not address.startswith(_HTTP)


def remote_matches(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the addresses of the files that match a pattern, in their order, with what the server told."""
    filesystem, path = open_filesystem(pattern)
    found = filesystem.glob(path, detail=True)
    return [(address_of(filesystem, p), info) for p, info in sorted(found.items()) if info["type"] != "directory"]


def in_parallel(look: Callable[[str, str], Scan], named: Iterable[tuple[str, str]]) -> Iterator[Scan]:
    """Look at paths with names, several at once and some ahead, in their order: each is a question to a server."""
    named = iter(named)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        while chunk := list(islice(named, _REQUESTS_AT_ONCE * 4)):
            yield from pool.map(look, *zip(*chunk, strict=True))


def open_remote(scan: Scan, max_bytes: int, *, whole: bool) -> BinaryIO:
    """Return the content of a scan as a stream to read from and seek in.

    Args:
        scan: at an address.
        max_bytes: of the content; the listing may not have told its size.
        whole: whether all of it is needed; otherwise only what is read is fetched, in large blocks.

    Raises:
        ImageError: it is not there, too large, or cannot be read.
    """
    try:
        filesystem, path = open_filesystem(scan.path)
        if not whole and scan.size > _IN_MEMORY:
            stream: BinaryIO = filesystem.open(path, "rb", block_size=_BLOCK, cache_type="blockcache")
            return stream
        if 0 < scan.size <= _IN_MEMORY:
            return io.BytesIO(filesystem.cat_file(path))  # one request
        with filesystem.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as remote:
            return _fetched(remote, max_bytes)
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"cannot be read: {words(error)}") from error


def _fetched(remote: BinaryIO, max_bytes: int) -> BinaryIO:
    local: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    while chunk := remote.read(_BLOCK):
        if local.tell() + len(chunk) > max_bytes:
            local.close()
            what = f"more bytes than the limit of {max_bytes}"
            raise ImageError(what, remedy="raise --max-bytes if the file can be trusted")
        local.write(chunk)
    local.seek(0)
    return local
