"""What the commands of this package share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dbcpu.errors import DbcpuError


@contextmanager
def errors_told() -> Iterator[None]:
    """End the program with a line on stderr and the error's exit code, where dbcpu raises an error of its own."""
    try:
        yield
    except DbcpuError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
