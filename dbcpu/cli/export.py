"""`dbcpu export`: a network in the format of another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from dbcpu.cli.convert import default_output
from dbcpu.cli.options import PATH, checkpoint_options, verbosity_options

_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}


@click.command(short_help="Write a network for ONNX Runtime or OpenVINO.")
@click.argument("file", type=PATH)
@click.option("--to", "runtime", type=click.Choice(["onnx", "openvino"]), required=True, help="The runtime.")
@click.option("-o", "--output", type=PATH, metavar="NEW", help="Name of the new file [default: FILE.onnx or FILE.xml].")
@click.option("--force", is_flag=True, help="Replace existing files.")
@checkpoint_options
@verbosity_options
def export(file: Path, runtime: Literal["onnx", "openvino"], output: Path | None, force: bool, **reading: Any) -> None:
    """Write the network of FILE, an old checkpoint or a model file, for another runtime.

    Batch, height and width stay free; height and width are multiples of 32. The configuration stands in the new file's
    metadata. OpenVINO's tensors stand in a second file, which ends in .bin. The runtime computes probability maps of
    several sizes, and the new files are kept only where these are torch's.
    """
    from dbcpu.checkpoint.load import load_network, read_weights, require_finite
    from dbcpu.checkpoint.native import KEY, describe_weights
    from dbcpu.errors import UsageError
    from dbcpu.export.to_onnx import write_onnx
    from dbcpu.export.to_openvino import write_openvino
    from dbcpu.files import check_other_file, check_target

    target = output or default_output(file, _ENDINGS[runtime])
    if target.suffix != _ENDINGS[runtime]:
        raise UsageError(f"must end in {_ENDINGS[runtime]}", where=target)
    for written in (target, target.with_suffix(".bin")) if runtime == "openvino" else (target,):
        check_other_file(written, file)
        check_target(written, replace=force)
    weights = read_weights(file, **reading)
    require_finite(weights)
    write = write_onnx if runtime == "onnx" else write_openvino
    metadata = {KEY: describe_weights(weights.config, weights.origin)}
    difference = write(target, load_network(weights.tensors, weights.config.model), metadata)
    click.echo(f"{target}: maps differ from torch's by at most {difference:.1g}", err=True)
