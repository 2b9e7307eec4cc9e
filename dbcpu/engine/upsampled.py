"""A 3x3 convolution of a nearest-upsampled map, computed at the resolution before the upsampling.

Upsampled by `f`, every pixel stands `f` times in each axis, so the three taps of an axis see at most two different
pixels: the first of the `f` copies sees (before, own), the last one (own, after), and all between them only their own.
So there are 9 kinds of output per pixel (4 where `f` is 2), each a convolution of 1 or 2 taps per axis with sums of the
kernel's taps, instead of 9 taps at `f * f` times as many places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from dbcpu.engine.fused import FusedConv2d

if TYPE_CHECKING:
    from collections.abc import Sequence

Edge = Literal["first", "last", "inner"]


def _merge_taps(weight: Tensor, axis: int, edge: Edge) -> Tensor:
    """Add up the three taps of an axis that fall on the same pixel: (before, own), (own, after) or (own)."""
    before, own, after = weight.unbind(axis)
    merged = {"first": (before, own + after), "last": (before + own, after), "inner": (before + own + after,)}[edge]
    return torch.stack(merged, axis)


class UpsampledConv3x3(nn.Module):
    """`conv3x3(upsample(x, factor))` with zero padding, added to a map of the output's size.

    Args:
        weight: float64 (out, in, 3, 3), of the convolution over the upsampled map.
        factor: of the nearest upsampling, at least 2.
        dtype: to compute in.
        fuse: False keeps to plain operators, for compilers.
    """

    def __init__(self, weight: Tensor, factor: int, dtype: torch.dtype = torch.float32, *, fuse: bool = True) -> None:
        super().__init__()
        self.factor = factor

        def merged(vertical: Sequence[Edge], horizontal: Sequence[Edge]) -> FusedConv2d:
            kernels = [_merge_taps(_merge_taps(weight, 2, v), 3, h) for v in vertical for h in horizontal]
            padding = int(len(vertical) == 2), int(len(horizontal) == 2)
            typical = (46, 46) if any(padding) else None
            return FusedConv2d(torch.cat(kernels).to(dtype), None, padding=padding, fuse=fuse, typical=typical)

        edges: tuple[Edge, Edge] = ("first", "last")
        self._corners = merged(edges, edges)
        if factor > 2:
            self._rows, self._columns = merged(edges, ("inner",)), merged(("inner",), edges)
            self._centre = merged(("inner",), ("inner",))

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Add the convolution of the upsampled `x` to `out`.

        Args:
            out: (B, out, f * H, f * W), channels-last; changed in place.
            x: (B, in, H, W), channels-last.
        """
        height, width = x.shape[2:]
        f = self.factor
        # (B, H, f, W, f, out): the place of each pixel among its copies in axes of its own.
        places = torch.unflatten(torch.unflatten(out.permute(0, 2, 3, 1), 2, (width, f)), 1, (height, f))
        corners = torch.unflatten(_channels_last(self._corners(x)), 3, (4, -1))
        places[:, :, 0, :, 0] += corners[:, :-1, :-1, 0]
        places[:, :, 0, :, -1] += corners[:, :-1, 1:, 1]
        places[:, :, -1, :, 0] += corners[:, 1:, :-1, 2]
        places[:, :, -1, :, -1] += corners[:, 1:, 1:, 3]
        if f == 2:
            return
        rows = torch.unflatten(_channels_last(self._rows(x)), 3, (2, -1)).unsqueeze(3)
        places[:, :, 0, :, 1:-1] += rows[:, :-1, :, :, 0]
        places[:, :, -1, :, 1:-1] += rows[:, 1:, :, :, 1]
        columns = torch.unflatten(_channels_last(self._columns(x)), 3, (2, -1)).unsqueeze(2)
        places[:, :, 1:-1, :, 0] += columns[:, :, :, :-1, 0]
        places[:, :, 1:-1, :, -1] += columns[:, :, :, 1:, 1]
        places[:, :, 1:-1, :, 1:-1] += _channels_last(self._centre(x))[:, :, None, :, None]


def _channels_last(planes: Tensor) -> Tensor:
    return planes.permute(0, 2, 3, 1)
