"""`dbcpu convert`: an old checkpoint becomes a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from dbcpu.cli.options import PATH, checkpoint_options, verbosity_options

# Endings that training code gives checkpoints. Anything else after a dot is part of the name.
_CHECKPOINT_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".pkl", ".tar", ".safetensors")


@click.command(short_help="Turn an old checkpoint into a model file.")
@click.argument("old", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Name of the new file [default: OLD.safetensors].")
@click.option(
    "--to",
    "target_format",
    type=click.Choice(["model", "original"]),
    default="model",
    show_default=True,
    help="A model file, or a checkpoint that the original code can go on training.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@checkpoint_options
@verbosity_options
def convert(
    old: Path, output: Path | None, target_format: Literal["model", "original"], force: bool, **reading: Any
) -> None:
    """Turn the checkpoint OLD into a model file: safetensors that carry their whole configuration.

    Nothing in OLD is executed. The new file is written under a temporary name, read back and compared before it
    takes its place.
    """
    from dbcpu.checkpoint.architecture import describe
    from dbcpu.checkpoint.back import write_original
    from dbcpu.checkpoint.load import read_weights, require_finite
    from dbcpu.checkpoint.native import write_model_file
    from dbcpu.errors import UsageError
    from dbcpu.files import check_other_file

    target = output or default_output(old, ".safetensors" if target_format == "model" else ".original")
    check_other_file(target, old)
    any_change = any(value not in (None, "auto", True) for value in reading.values())
    weights = read_weights(old, **reading)
    if target_format == "model" and weights.converted and not any_change:
        raise UsageError("a model file already", where=old, remedy="nothing to convert; use it as it is")
    require_finite(weights)
    if target_format == "model":
        write_model_file(target, weights.tensors, weights.config, weights.origin, replace=force)
    else:
        write_original(target, weights.tensors, weights.config, source=old, replace=force)
    kept, dropped = len(weights.tensors), len(weights.origin.dropped)
    described = describe(weights.config.model)
    click.echo(f"{target}: {described}, {kept} tensors kept, {dropped} dropped", err=True)


def default_output(old: Path, ending: str) -> Path:
    """Return the name of the new file for the checkpoint `old`, beside it."""
    stem = old.stem if old.suffix.lower() in _CHECKPOINT_ENDINGS else old.name
    return old.parent / f"{stem}{ending}"  # `.` has no name to replace; reading it says what it is
