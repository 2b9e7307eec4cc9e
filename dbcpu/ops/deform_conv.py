"""Deformable convolution, DCN v1 and v2 (arXiv 1703.06211, 1811.11168): a drop-in for torchvision's in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

import dbcpu.ops.operator  # noqa: F401 - registers torch.ops.dbcpu.deform_conv2d


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
    device = input.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, weight = _autocast(input, dtype), _autocast(weight, dtype)  # noqa: A001
        bias = None if bias is None else _autocast(bias, dtype)
    steps = _pair(stride), _pair(padding), _pair(dilation)
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
