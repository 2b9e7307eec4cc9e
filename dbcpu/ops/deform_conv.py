"""Deformable convolution, DCN v1 and v2 (arXiv 1703.06211, 1811.11168): a drop-in for torchvision's in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from dbcpu.ops.operator import output_size


def deform_conv2d(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = (1, 1),
    padding: int | tuple[int, int] = (0, 0),
    dilation: int | tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Apply a deformable convolution (DCN v1), modulated if a mask is given (DCN v2).

    Parameters, defaults and shapes are those of `torchvision.ops.deform_conv2d`. Unlike there, offsets that are NaN
    give zero, as in the CUDA kernels of the original code; offsets and mask may be of another dtype than the input, and
    are never rounded to it; under autocast the matrix product takes the autocast dtype.

    Fastest with `input` and `weight` in channels-last. Without gradients, the memory beside the output is that of a
    chunk of output pixels, and of one channels-last copy of the input if it is laid out otherwise.

    Args:
        input: shape (N, C, H, W).
        offset: shape (N, 2 * offset groups * kh * kw, Ho, Wo): per offset group and tap (row-major) dy, then dx, in
            input pixels. This shape tells the number of offset groups, which divides C.
        weight: shape (Cout, C / groups, kh, kw), of the input's dtype.
        bias: shape (Cout,), of the input's dtype.
        stride: input pixels between output pixels, for both axes or (vertical, horizontal), like the next two.
        padding: zero pixels around the input.
        dilation: input pixels between taps.
        mask: shape (N, offset groups * kh * kw, Ho, Wo); multiplies the samples of each tap.

    Returns:
        Shape (N, Cout, Ho, Wo), `Ho = (H + 2 * padding - dilation * (kh - 1) - 1) // stride + 1`; channels-last if the
        input is.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not go together.
    """
    if torch.is_autocast_enabled(input.device.type):
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight = _autocast(input, dtype), _autocast(weight, dtype)  # noqa: A001
        bias = None if bias is None else _autocast(bias, dtype)
    steps = _pair(stride), _pair(padding), _pair(dilation)
    _check(input, offset, weight, bias, mask, *steps)
    output: Tensor = torch.ops.dbcpu.deform_conv2d(input, offset, weight, bias, mask, *steps)
    return output


def _autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # As torch's own rule: float64 was asked for, and stays.
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)


class DeformConv2d(nn.Module):
    """A layer around `deform_conv2d`, with torchvision's parameters, initialization and names in the state dict.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: for both axes or (vertical, horizontal), like the next three.
        stride: input pixels between output pixels.
        padding: zero pixels around the input.
        dilation: input pixels between taps.
        groups: blocks of channels that do not see each other; divides both numbers of channels.
        bias: whether to add a learned bias.

    Raises:
        ValueError: channels that `groups` does not divide.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name} must be divisible by groups, got {channels} and {groups}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size: tuple[int, int] = _pair(kernel_size)
        self.stride: tuple[int, int] = _pair(stride)
        self.padding: tuple[int, int] = _pair(padding)
        self.dilation: tuple[int, int] = _pair(dilation)
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters, as `torch.nn.Conv2d` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002
        """Apply the layer; shapes as for `deform_conv2d`."""
        return deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)

    def extra_repr(self) -> str:
        """Return the arguments, leaving out defaults as torchvision does."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, default in (("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else f"{text}, bias=False"


def _check(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Raise RuntimeError, as torchvision does, unless the arguments go together."""
    tensors = {"input": input, "offset": offset, "weight": weight, "bias": bias, "mask": mask}
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in given.items():
        if name != "bias":
            _expect(tensor.ndim == 4, f"{name}: 4 dimensions", tuple(tensor.shape))
        same_dtype = name in ("offset", "mask") or tensor.dtype == input.dtype
        _expect(tensor.is_floating_point() and same_dtype, f"{name}: {_floating(name, input)}", tensor.dtype)
        _expect(tensor.device == input.device, f"{name}: on the input's device, {input.device}", tensor.device)
    for name, values, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        _expect(min(values) >= least, f"{name}: at least {least}", values)
    (images, channels, height, width), (outputs, inputs, kernel_height, kernel_width) = input.shape, weight.shape
    _expect(height > 0 and width > 0, "input: at least one pixel", tuple(input.shape))
    _expect(min(inputs, kernel_height, kernel_width) > 0, "weight: no empty dimension", tuple(weight.shape))
    _expect(
        channels % inputs == 0 and outputs % (channels // inputs) == 0,
        f"weight: shape (out channels, in channels / groups, kh, kw) for {channels} in channels",
        tuple(weight.shape),
    )
    taps = kernel_height * kernel_width
    offset_groups = offset.shape[1] // (2 * taps)
    _expect(
        offset_groups > 0 and offset.shape[1] == offset_groups * 2 * taps and channels % offset_groups == 0,
        f"offset: 2 * kh * kw = {2 * taps} channels for each group of the {channels} in channels",
        tuple(offset.shape),
    )
    out_size = output_size((height, width), (kernel_height, kernel_width), stride, padding, dilation)
    _expect(min(out_size) > 0, "input: a plane that holds the dilated kernel once padded", tuple(input.shape))
    shapes = {"offset": (images, offset.shape[1], *out_size), "mask": (images, offset.shape[1] // 2, *out_size)}
    for name, shape in ({"bias": (outputs,)} | shapes).items():
        if name in given:
            _expect(tuple(given[name].shape) == shape, f"{name}: shape {shape}", tuple(given[name].shape))


def _floating(name: str, input: Tensor) -> str:  # noqa: A002
    return "a floating point dtype" if name in ("input", "offset", "mask") else f"the input's dtype, {input.dtype}"


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise RuntimeError(f"expected {expected}; got {got}")
