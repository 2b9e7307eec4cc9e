"""`dbcpu convert`: an old checkpoint becomes a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbcpu.cli.options import PATH, checkpoint_options, verbosity_options

if TYPE_CHECKING:
    from dbcpu.config import OffsetStrideChoice

# Endings that training code gives checkpoints. Anything else after a dot is part of the name.
_CHECKPOINT_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".pkl", ".tar", ".safetensors")


@click.command(short_help="Turn an old checkpoint into a model file.")
@click.argument("old", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Name of the model file [default: OLD.safetensors].")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@checkpoint_options
@verbosity_options
def convert(
    old: Path, output: Path | None, force: bool, config: Path | None, offset_stride: OffsetStrideChoice
) -> None:
    """Turn the checkpoint OLD into a model file: safetensors that carry their whole configuration.

    Nothing in OLD is executed. The model file is written under a temporary name, read back and compared before it
    takes its place.
    """
    from dbcpu.checkpoint.architecture import describe
    from dbcpu.checkpoint.load import read_weights, require_finite
    from dbcpu.checkpoint.native import write_model_file
    from dbcpu.errors import UsageError

    target = output or default_output(old)
    if target.exists() and old.exists() and target.samefile(old):
        raise UsageError("would replace the file it reads", where=target, remedy="name another one with -o")
    weights = read_weights(old, config_path=config, offset_stride=offset_stride)
    if weights.converted and config is None and offset_stride == "auto":
        raise UsageError("a model file already", where=old, remedy="nothing to convert; use it as it is")
    require_finite(weights)
    write_model_file(target, weights.tensors, weights.config, weights.origin, replace=force)
    kept, dropped = len(weights.tensors), len(weights.origin.dropped)
    described = describe(weights.config.model)
    click.echo(f"{target}: {described}, {kept} tensors kept, {dropped} dropped", err=True)


def default_output(old: Path) -> Path:
    """Return the name of the model file for the checkpoint `old`, beside it."""
    stem = old.stem if old.suffix.lower() in _CHECKPOINT_ENDINGS else old.name
    return old.with_name(f"{stem}.safetensors")
