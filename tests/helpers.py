"""What several test files call."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Collection
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


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of all files in a folder, by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_times(results: dict[str, bytes], *, also: Collection[str] = ()) -> dict[str, bytes]:
    """What two runs of a batch have to agree on: their files, with `also` what else their manifests leave out."""
    lines = [{**json.loads(line), "seconds": 0} for line in results["manifest.jsonl"].splitlines()]
    kept = [{key: value for key, value in line.items() if key not in also} for line in lines]
    summary = {**json.loads(results["summary.json"]), "seconds": 0}
    return {**results, "manifest.jsonl": json.dumps(kept).encode(), "summary.json": json.dumps(summary).encode()}


def results_in(folder: Path) -> dict[str, bytes]:
    """The files that a run has left in a folder, times aside."""
    return without_times(files_in(folder))
