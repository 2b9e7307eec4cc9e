"""A network in OpenVINO's format, made from the torch program: its reader of ONNX refuses DeformConv."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcpu.export.program import INPUT, OUTPUT, compare_with_torch, quiet, require_packages, trace_network
from dbcpu.files import complete_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbcpu.model.network import Network


def write_openvino(path: Path, network: Network, metadata: Mapping[str, str]) -> float:
    """Write a network in OpenVINO's format; the files appear only when OpenVINO gave torch's numbers with them.

    Its input and output are named `INPUT` and `OUTPUT`; batch, height and width are free.

    Args:
        path: of the file, ending in .xml; its tensors stand beside it, in one that ends in .bin. Older ones are
            replaced.
        network: in evaluation mode, without gradients.
        metadata: what the file says beside the network, as its runtime information.

    Returns:
        The largest difference of its maps from torch's, in float32.

    Raises:
        UsageError: the packages of the extra `openvino` are not installed.
        OutputError: the files cannot be written, or their maps differ.
    """
    require_packages("openvino", ("openvino",))
    import openvino
    from openvino.frontend.pytorch import ConversionExtension

    with quiet():
        extension = ConversionExtension("dbcpu.deform_conv2d.default", _deformable_convolution)
        model = openvino.convert_model(trace_network(network), extension=[extension])
    for port, name in ((model.inputs[0], INPUT), (model.outputs[0], OUTPUT)):
        port.get_tensor().set_names({name})
    for key, value in metadata.items():
        model.set_rt_info(value, [key])
    # The tensors take their place first: a file that points to none would be worse than the reverse.
    with complete_file(path) as partial, complete_file(path.with_suffix(".bin")) as partial_tensors:
        with tempfile.TemporaryDirectory(prefix=f".{path.stem[:100]}.", dir=path.parent) as folder:
            written = Path(folder) / "model.xml"  # the ending is required
            try:
                openvino.save_model(model, written, compress_to_fp16=False)
            except RuntimeError as error:  # its own word for a full disk
                raise OSError(str(error)) from None
            # Without the hint it computes in bfloat16 where the CPU can.
            compiled = openvino.compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            difference = compare_with_torch(lambda batch: compiled([batch])[OUTPUT], network, where=path)
            written.replace(partial)
            written.with_suffix(".bin").replace(partial_tensors)
        return difference


def _deformable_convolution(node: Any) -> Any:
    """Translate `dbcpu::deform_conv2d`; the networks' have no bias."""
    from openvino import opset8

    images, offset, weight, _, mask = (node.get_input(index) for index in range(5))
    stride, padding, dilation = (node.get_values_from_const_input(index) for index in range(5, 8))
    modulation = [] if mask.get_node().get_type_name() == "PtFrameworkNode" else [mask]  # which is what None becomes
    return opset8.deformable_convolution(
        images, offset, weight, stride, padding, padding, dilation, *modulation, bilinear_interpolation_pad=True
    ).outputs()
