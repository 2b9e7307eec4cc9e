"""Addresses such as `s3://bucket/scans`: files that are not in a folder of this machine, through fsspec."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbcpu.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5")
_ESCAPED = {"": "%", ".": "%2E", "..": "%2E%2E"}  # parts of a key that mean something else in a path


def is_address(text: object) -> bool:
    """Whether a source or the place of results is no path but an address with a scheme."""
    return _ADDRESS.match(str(text)) is not None


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the file system that an address is in, and its path there; nothing is asked of a server yet.

    Credentials come from where each service's own tools look for them: its variables in the environment, its files, or
    the machine's role.

    Raises:
        UsageError: there is no such scheme, its library is not installed, or the address carries a password.
    """
    import fsspec

    try:
        if urlsplit(address).password is not None:
            raise UsageError("a password in an address would end up in the results", remedy="use the environment")
        # What other machines write meanwhile has to be seen: no listings are kept.
        filesystem, path = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error), where=address, remedy="pip install 'dbcpu[cloud]' has s3 and http") from error
    return filesystem, path


def address_of(filesystem: Any, path: str) -> str:
    """Return the address of a path in a file system."""
    return str(filesystem.unstrip_protocol(path))


def as_path(address: str) -> str:
    """Return the path that stands for an address in the tree of the results, `/s3/bucket/key`.

    Keys are any text: parts that would lead out of the tree, or be lost in it, come out escaped.
    """
    scheme, _, rest = address.partition("://")
    return "/".join(["", scheme, *(_ESCAPED.get(part, part) for part in rest.rstrip("/").split("/"))])


def modified_ns(info: Mapping[str, Any]) -> int:
    """Return when a file was changed last, in nanoseconds; 0 where its server does not tell."""
    time: Any = next((info[key] for key in _TIMES if info.get(key)), None)
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time.replace("Z", "+00:00"))
        except ValueError:
            time = parsedate_to_datetime(time)
    if isinstance(time, datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
    return 0 if time is None else round(time * 1000) * 1_000_000  # what a float can tell


def version(info: Mapping[str, Any]) -> str | None:
    """Return what the server says a content differs by, such as an entity tag; None where it does not."""
    return next((str(info[key]).strip('"') for key in _VERSIONS if info.get(key)), None)


def words(error: Exception) -> str:
    """Return what an error of a storage service says, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__
