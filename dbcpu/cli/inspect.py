"""`dbcpu inspect`: what a weights file holds and how dbcpu understands it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbcpu.cli.options import PATH, checkpoint_options, verbosity_options
from dbcpu.errors import printable

if TYPE_CHECKING:
    from dbcpu.checkpoint.load import Weights


@click.command(short_help="Show what a weights file holds.")
@click.argument("file", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON document.")
@checkpoint_options
@verbosity_options
def inspect(file: Path, as_json: bool, **reading: Any) -> None:
    """Show the family, architecture, tensors and configuration of FILE, an old checkpoint or a model file.

    Ends with exit code 4 where the file cannot be used; weights that hold NaN are shown, and named as a problem.
    """
    from dbcpu.checkpoint.load import read_weights

    weights = read_weights(file, **reading)
    report = _report(weights)
    click.echo(json.dumps(report, indent=2) if as_json else _text(report))
    if report["non_finite"]:
        from dbcpu.errors import CheckpointError

        raise CheckpointError(
            "NaN, infinity or a negative variance in the weights", where=file, remedy="take an earlier checkpoint"
        )


def _report(weights: Weights) -> dict[str, Any]:
    from dbcpu.checkpoint.architecture import describe, non_finite
    from dbcpu.checkpoint.families import FAMILIES
    from dbcpu.config import config_to_mapping

    raw, tensors = weights.raw, weights.tensors
    return {
        "file": str(raw.path),
        "bytes": raw.byte_count,
        "sha256": raw.sha256,
        "kind": "model file" if weights.converted else "old checkpoint",
        "container": raw.container,
        "prefix": raw.prefix,
        "family": weights.origin.family,
        "family_implies": next((f.explanation for f in FAMILIES if f.name == weights.origin.family), None),
        "architecture": describe(weights.config.model),
        "parameters": sum(t.numel() for name, t in tensors.items() if "running_" not in name),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}),
        "kept": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "dropped": [{"name": name, "reason": reason} for name, reason in weights.origin.dropped],
        "ignored_entries": list(raw.extras),
        "non_finite": non_finite(tensors),
        "config": config_to_mapping(weights.config),
        "origin": {
            "file_name": weights.origin.file_name,
            "sha256": weights.origin.sha256,
            "dbcpu_version": weights.origin.dbcpu_version,
        },
    }


def _text(report: dict[str, Any]) -> str:
    rows = [
        ("file", f"{report['file']} ({report['bytes']:,} bytes)"),
        ("sha256", report["sha256"]),
        ("kind", f"{report['kind']}, {report['container']}"),
        ("family", report["family"] + (f", names under {report['prefix']!r}" if report["prefix"] else "")),
        ("", report["family_implies"] or ""),
        ("architecture", report["architecture"]),
        ("parameters", f"{report['parameters']:,}, stored as {', '.join(report['dtypes'])}"),
        ("kept", f"{len(report['kept'])} tensors (--json lists them)"),
        *(("dropped", f"{count} x {reason}") for reason, count in _counts(report["dropped"]).items()),
        *(("ignored", entry) for entry in report["ignored_entries"]),
        *(("gives NaN", name) for name in report["non_finite"]),
    ]
    if report["kind"] == "model file":
        origin = report["origin"]
        rows.append(("converted from", f"{origin['file_name']} by dbcpu {origin['dbcpu_version']}"))
        rows.append(("", f"sha256 {origin['sha256']}"))
    for stage, settings in report["config"].items():
        rows.append((stage, ""))
        rows.extend((f"  {key}", str(value)) for key, value in settings.items() if value is not None)
    width = max(len(label) for label, _ in rows)
    return "\n".join(printable(f"{label:<{width}}  {value}".rstrip()) for label, value in rows)


def _counts(dropped: list[dict[str, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in dropped:
        counts[entry["reason"]] = counts.get(entry["reason"], 0) + 1
    return counts
