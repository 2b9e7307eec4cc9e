"""A network as an ONNX file, with the standard operator DeformConv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dbcpu.errors import OutputError
from dbcpu.export.program import AXES, INPUT, OUTPUT, compare_with_torch, quiet, require_packages, trace_network
from dbcpu.files import complete_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dbcpu.model.network import Network

OPSET = 19  # the first with DeformConv


def write_onnx(path: Path, network: Network, metadata: Mapping[str, str]) -> float:
    """Write a network as ONNX; the file appears only when ONNX Runtime gave torch's numbers with it.

    Its input and output are named `INPUT` and `OUTPUT`; batch, height and width are free.

    Args:
        path: of the file; an older one is replaced.
        network: in evaluation mode, without gradients.
        metadata: what the file says beside the network.

    Returns:
        The largest difference of its maps from torch's.

    Raises:
        UsageError: the packages of the extra `onnx` are not installed.
        OutputError: the file cannot be written, or its maps differ.
    """
    require_packages("onnx", ("onnx", "onnxscript", "onnxruntime"))
    import onnxruntime

    with quiet():
        exported = torch.onnx.export(
            trace_network(network),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table={torch.ops.dbcpu.deform_conv2d.default: _deform_conv},
        )
    if exported is None:
        raise OutputError("torch gave no ONNX program", where=path)
    _tidy(exported.model)
    exported.model.metadata_props.update(metadata)
    with complete_file(path) as partial:
        exported.save(partial, external_data=False)
        session = onnxruntime.InferenceSession(partial, providers=["CPUExecutionProvider"])
        return compare_with_torch(lambda batch: session.run([OUTPUT], {INPUT: batch})[0], network, where=path)


def _deform_conv(
    images: Any,
    offset: Any,
    weight: Any,
    bias: Any,
    mask: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Any:
    """Translate `dbcpu::deform_conv2d`."""
    from onnxscript import opset19

    steps = {"strides": [*stride], "pads": [*padding, *padding], "dilations": [*dilation]}
    return opset19.DeformConv(images, weight, offset, bias, mask, kernel_shape=[*weight.shape[2:]], **steps)


def _tidy(model: Any) -> None:
    """Name the free axes, and drop what the exporter notes of the source code, its paths among it."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            value.shape = None  # in terms of other names; runtimes infer shapes themselves
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    (map_in,), (map_out,) = model.graph.inputs, model.graph.outputs
    for axis, name in AXES.items():
        map_in.shape[axis] = name
    map_out.shape = type(map_in.shape)([AXES[0], 1, AXES[2], AXES[3]])
