"""Convolutions with the element-wise work after them in the same pass over memory.

The operators are the ones that torch's own compiler emits; where a build of torch lacks them, plain ones take over.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TYPICAL = (46, 46)
_NO_SCALARS: list[float | None] = []


def _can_fuse(weight: Tensor) -> bool:
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_convolution_pointwise_"))
        # Without instructions for it oneDNN refuses bfloat16, where torch falls back by itself.
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _has_bf16()))
    )


def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _arranges_reliably() -> bool:
    # On older instruction sets the arrangement depends on the size for all kernels.
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "ONEDNN_MAX_CPU_ISA" not in os.environ


class FusedConv2d:
    """A convolution whose weights stand in no state dict, since oneDNN may keep them in an order of its own.

    Args:
        weight: (out, in, kh, kw).
        bias: (out,).
        stride: for both axes.
        padding: zero pixels around the input, (vertical, horizontal).
        fuse: False keeps to plain operators, for compilers.
        typical: height and width of usual inputs, to arrange the weight for them once instead of at every call. Only
            for kernels larger than 1x1, or inputs of 64 pixels and more: in other cases oneDNN wants other arrangements
            for other sizes, and takes a hundred times as long to get there from a wrong one than from none.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        fuse: bool = True,
        typical: tuple[int, int] | None = None,
    ) -> None:
        self.dtype = weight.dtype
        self._bias = None if bias is None else bias.detach()
        self._stride = [stride, stride]
        self._padding = list(padding)
        self._weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self._is_fused = fuse and _can_fuse(weight)
        if self._is_fused and typical is not None and _arranges_reliably():
            steps = (self._padding, self._stride, [1, 1], 1)
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self._weight = reorder(self._weight, *steps, [1, weight.shape[1], *typical])

    @classmethod
    def of(cls, conv: nn.Conv2d, *, dtype: torch.dtype | None = None, fuse: bool = True) -> FusedConv2d:
        """Take over a convolution with equal strides, no dilation and one group, to compute in `dtype`."""
        weight, bias = conv.weight.to(dtype), None if conv.bias is None else conv.bias.to(dtype)
        padding = int(conv.padding[0]), int(conv.padding[1])
        typical = _TYPICAL if conv.kernel_size != (1, 1) else None
        return cls(weight, bias, stride=conv.stride[0], padding=padding, fuse=fuse, typical=typical)

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Return the convolution of channels-last (B, in, H, W), and the ReLU of it if asked for."""
        if not self._is_fused:
            out = F.conv2d(x, self._weight, self._bias, self._stride, self._padding)
            return out.relu_() if relu else out
        steps = (self._padding, self._stride, [1, 1], 1)
        after = "relu" if relu else "none"
        convolution = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = convolution(x, self._weight, self._bias, *steps, after, _NO_SCALARS, "")
        return result

    def add_to(self, out: Tensor, x: Tensor, *, relu: bool = False) -> None:
        """Add the convolution of channels-last (B, in, H, W) to `out`, and apply the ReLU to the sum if asked for."""
        if not self._is_fused:
            out += F.conv2d(x, self._weight, self._bias, self._stride, self._padding)
            if relu:
                out.relu_()
            return
        steps = (self._padding, self._stride, [1, 1], 1)
        after = "relu" if relu else None
        torch.ops.mkldnn._convolution_pointwise_(
            out, x, self._weight, self._bias, *steps, "add", 1.0, after, _NO_SCALARS, None
        )
