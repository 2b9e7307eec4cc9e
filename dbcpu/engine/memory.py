"""Freed memory kept for the next picture, where the C library would hand it back to the system each time."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_HUGE = 100_000_000  # bytes
_LARGEST = 1 << 30  # bytes; single blocks above it still go back at once
_PAGES_BETWEEN = 16  # times freed blocks are handed back all the same; a time costs some 50 ms, of 6 s
_pages = itertools.count(1)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks, for the whole process; meant for programs, not for libraries.

    A feature map in fresh pages costs a page fault each 4 KiB: some 8500 a picture of 736x736, 5 % of its time. The
    peak of memory stays what it was, but less of it is given back between pictures. All threads share what is kept:
    by default each would keep its own, which took a fifth more where two threads read and detected by turns. Pages of
    many sizes leave ever more holes that none of the next fits in: call `give_back` for each of them.

    Returns:
        Whether the C library took it; others than glibc do not know the call.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: _LARGEST, _M_TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(parameter, value) for parameter, value in wanted.items())


def give_back(page_bytes: int) -> None:
    """Hand freed blocks back to the system after all, now and then, and if decoding a page has left many.

    Args:
        page_bytes: of the page that has just been decoded; from 100 MB on it counts as huge, and took more than twice
            as much to decode.
    """
    is_due = next(_pages) % _PAGES_BETWEEN == 0 or page_bytes > _HUGE
    if is_due and sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
