"""What the benchmark compares: dbcpu's network and its peers, each loaded from one checkpoint and run on one batch.

Each loader imports what it needs itself, so that the memory of one is not that of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    # From float32 (1, 3, H, W), normalised, to the probability map, float32 (H, W).
    Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Job:
    """One network at one size: what every contender is given.

    Attributes:
        weights: the checkpoint; `dbcpu export` wrote .onnx and .xml files beside it.
        height: of the input, in pixels.
        width: of the input, in pixels.
        precision: "fp32" or "bf16".
        threads: each contender may use.
    """

    weights: Path
    height: int
    width: int
    precision: str
    threads: int


def load_ours(job: Job) -> Run:
    import torch

    from dbcpu.detector import load_detector
    from dbcpu.engine.memory import keep_freed_memory
    from dbcpu.geometry import Size
    from dbcpu.preprocess import NetworkInput

    keep_freed_memory()  # as the command line does
    precision: Any = job.precision
    detector = load_detector(job.weights, precision=precision, threads=job.threads)
    size = Size(job.height, job.width)

    def run(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        x = torch.from_numpy(batch)
        return detector.infer(NetworkInput(tensor=x, network_size=size, content_size=size, image_size=size))

    return run


def load_plain(job: Job, operator: Callable[..., Tensor] | None = None) -> Run:
    import torch

    from dbcpu.checkpoint.load import load_network, read_weights
    from dbcpu.ops import DeformConv2d

    torch.set_num_threads(job.threads)
    weights = read_weights(job.weights)
    network = load_network(weights.tensors, weights.config.model)
    for module in network.modules():
        if operator is not None and isinstance(module, DeformConv2d):
            module.forward = partial(_with_operator, module, operator)  # type: ignore[method-assign]

    def run(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16"):
            return network(torch.from_numpy(batch)).to(torch.float32).numpy()[0, 0]  # type: ignore[no-any-return]

    return run


def _with_operator(
    layer: Any, operator: Callable[..., Tensor], x: Tensor, offset: Tensor, mask: Tensor | None = None
) -> Tensor:
    return operator(x, offset, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, mask)


def load_torchvision(job: Job) -> Run:
    from torchvision.ops import deform_conv2d

    return load_plain(job, deform_conv2d)


def load_naive(job: Job) -> Run:
    return load_plain(job, naive_deform_conv2d)


def naive_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: Tensor | None,
) -> Tensor:
    """The operator as one writes it first: four corners gathered from the padded image, a product, a sum.

    Shapes are those of `dbcpu.ops.deform_conv2d`, with one group and one offset group.
    """
    import torch
    from torch.nn import functional as F

    images, channels, height, width = x.shape
    kernel_height, kernel_width = weight.shape[2:]
    out_height, out_width = offset.shape[2:]
    deltas = offset.view(images, kernel_height * kernel_width, 2, out_height, out_width)
    tap_y, tap_x = torch.meshgrid(torch.arange(kernel_height), torch.arange(kernel_width), indexing="ij")
    rows = torch.arange(out_height).view(-1, 1) * stride[0] - padding[0]
    columns = torch.arange(out_width).view(1, -1) * stride[1] - padding[1]
    y = deltas[:, :, 0] + rows + (tap_y * dilation[0]).reshape(-1, 1, 1)
    x_ = deltas[:, :, 1] + columns + (tap_x * dilation[1]).reshape(-1, 1, 1)
    padded = F.pad(x, (1, 1, 1, 1)).flatten(2)  # a ring of zeros: all that lies outside
    samples = x.new_zeros(images, channels, y[0].numel())
    for corner_y in (y.floor(), y.floor() + 1):
        for corner_x in (x_.floor(), x_.floor() + 1):
            share = (1 - (y - corner_y).abs()) * (1 - (x_ - corner_x).abs())
            row, column = (corner_y + 1).clamp(0, height + 1), (corner_x + 1).clamp(0, width + 1)
            index = (row * (width + 2) + column).long().view(images, 1, -1).expand(-1, channels, -1)
            samples += padded.gather(2, index) * share.view(images, 1, -1)
    if mask is not None:
        samples = samples * mask.reshape(images, 1, -1)
    matrix = samples.view(images, channels * kernel_height * kernel_width, out_height * out_width)
    out = (weight.flatten(1) @ matrix).view(images, -1, out_height, out_width)
    return out if bias is None else out + bias.view(-1, 1, 1)


def load_onnxruntime(job: Job) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads would disturb the others
    path = job.weights.with_suffix(".onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input": batch})[0][0, 0]


def load_openvino(job: Job) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(job.weights.with_suffix(".xml"))
    model.reshape([1, 3, job.height, job.width])  # it is fastest where it knows the size
    hints = {"INFERENCE_PRECISION_HINT": "f32" if job.precision == "fp32" else "bf16", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", hints | {"INFERENCE_NUM_THREADS": job.threads})
    return lambda batch: np.array(compiled([batch])[0][0, 0])


OURS = "dbcpu"
CONTENDERS: dict[str, Callable[[Job], Run]] = {
    OURS: load_ours,
    "OpenVINO": load_openvino,
    "ONNX Runtime": load_onnxruntime,
    "plain": load_plain,
    "torchvision": load_torchvision,
    "naive": load_naive,
}
