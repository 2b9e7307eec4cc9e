"""What an operator can set, beside the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbcpu.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_SHORTEST_KEY = 16  # characters; shorter ones can be guessed over a network


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may cost.

    Attributes:
        max_body: bytes of a request.
        max_pixels: of a page; more are refused by the header, before they are decoded.
        max_network_pixels: of the network's input for a page; each takes some 600 bytes of memory.
        max_pages: of a file.
        max_files: of a batch.
        deadline: seconds for a file, from its place in the queue to its result.
        read_timeout: seconds for the headers of a request, and for its body beside what its size takes at the lowest
            rate.
    """

    max_body: int = 64 << 20
    max_pixels: int = 100_000_000
    max_network_pixels: int = 4_000_000
    max_pages: int = 16
    max_files: int = 64
    deadline: float = 30.0
    read_timeout: float = 20.0

    @property
    def largest_short_side(self) -> int:
        """Of the network's input; a square page of it is within the limit."""
        return math.isqrt(self.max_network_pixels) // 32 * 32


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How the server listens and works.

    Attributes:
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        workers: processes that pictures are worked on in, one each.
        threads: of each; None shares the CPUs among the pictures that are worked on when one begins.
        queue: pictures that may wait for a worker.
        keys: API keys, one of which a request must carry; empty lets everybody in.
        cors_origins: web sites whose pages may use the API.
        keep_seconds: how long the probability maps of a picture are kept after their last use.
        keep_bytes: of all kept pictures and their maps.
        limits: of a request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int
    threads: int | None = None
    queue: int = 32
    keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    keep_seconds: float = 600.0
    keep_bytes: int = 256 << 20
    limits: Limits = Limits()


def read_keys(path: Path) -> tuple[str, ...]:
    """Read API keys: one a line; empty lines and those that begin with `#` are none.

    Raises:
        ConfigError: the file cannot be read, or holds no key, or one that is too short or that no header can carry.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the API keys cannot be read: {error}", where=path) from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise ConfigError("no API key in it", where=path, remedy="one a line, such as `openssl rand -hex 32` prints")
    for number, key in enumerate(keys, start=1):
        if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            what = f"key {number} must be at least {_SHORTEST_KEY} printable ASCII characters, without spaces"
            raise ConfigError(what, where=path)
    return keys
