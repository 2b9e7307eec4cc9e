"""What several test files call."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "data" / "golden"


def golden_entries(name: str) -> list[dict[str, Any]]:
    """The entries of a golden JSON file."""
    entries: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return entries


def run_cli(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from dbcpu.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()
