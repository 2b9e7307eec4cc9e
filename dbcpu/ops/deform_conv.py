"""Deformable convolution (DCN v1 and v2), a drop-in for `torchvision.ops` in plain torch operations."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

CHUNK = 2048


class _Geometry(NamedTuple):
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    kernel: tuple[int, int]
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    groups: int
    offset_groups: int


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
    """Apply a deformable convolution, modulated if a mask is given."""
    geometry = _geometry(input, offset, weight, mask, _pair(stride), _pair(padding), _pair(dilation))
    height, width = geometry.out_size
    rows = input.permute(0, 2, 3, 1).reshape(-1, input.shape[1] // geometry.offset_groups)
    indices, weights = _corners(offset, mask, geometry)
    indices = indices.flatten(0, -2)
    weights = weights.flatten(0, -2).to(rows.dtype)
    columns = F.embedding_bag(indices, rows, mode="sum", per_sample_weights=weights)
    g, c = geometry.groups, input.shape[1]
    columns = columns.view(-1, geometry.offset_groups, math.prod(geometry.kernel), c // geometry.offset_groups)
    columns = columns.transpose(2, 3).reshape(-1, g, c // g * math.prod(geometry.kernel)).transpose(0, 1)
    out = columns @ weight.view(g, weight.shape[0] // g, -1).transpose(1, 2)
    out = out.transpose(0, 1).reshape(input.shape[0], height, width, weight.shape[0])
    if bias is not None:
        out = out + bias
    return out.permute(0, 3, 1, 2)


def _corners(offset: Tensor, mask: Tensor | None, geometry: _Geometry) -> tuple[Tensor, Tensor]:
    """Return row indices and weights, both (N, Ho, Wo, G, K, 4)."""
    (height, width), groups = geometry.in_size, geometry.offset_groups
    kh, kw = geometry.kernel
    n, _, ho, wo = offset.shape
    real = torch.float64 if offset.dtype == torch.float64 else torch.float32
    offset = offset.to(real).permute(0, 2, 3, 1).reshape(n, ho, wo, groups, kh * kw, 2)

    def base(count: int, taps: int, axis: int) -> tuple[Tensor, Tensor]:
        where = torch.arange(count, device=offset.device, dtype=real) * geometry.stride[axis] - geometry.padding[axis]
        return where, torch.arange(taps, device=offset.device, dtype=real) * geometry.dilation[axis]

    row, tap_row = base(ho, kh, 0)
    column, tap_column = base(wo, kw, 1)
    y = offset[..., 0] + row[:, None, None, None] + tap_row.repeat_interleave(kw)
    x = offset[..., 1] + column[:, None, None] + tap_column.repeat(kh)
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y = torch.where(inside, y, 0)
    x = torch.where(inside, x, 0)
    top, left = y.detach().floor(), x.detach().floor()
    fy, fx = y - top, x - left
    top, left = top.long(), left.long()
    wy = torch.stack((torch.where(top >= 0, 1 - fy, 0), torch.where(top + 1 < height, fy, 0)), -1)
    wx = torch.stack((torch.where(left >= 0, 1 - fx, 0), torch.where(left + 1 < width, fx, 0)), -1)
    modulation = inside.to(real)
    if mask is not None:
        modulation = modulation * mask.to(real).permute(0, 2, 3, 1).reshape(n, ho, wo, groups, kh * kw)
    weights = modulation[..., None, None] * wy[..., :, None] * wx[..., None, :]
    ys = torch.stack((top.clamp(min=0), (top + 1).clamp(max=height - 1)), -1)
    xs = torch.stack((left.clamp(min=0), (left + 1).clamp(max=width - 1)), -1)
    image = torch.arange(n, device=offset.device).view(n, 1, 1, 1, 1, 1, 1)
    group = torch.arange(groups, device=offset.device).view(groups, 1, 1, 1)
    indices = ((image * height + ys[..., :, None]) * width + xs[..., None, :]) * groups + group
    return indices.flatten(-2), weights.flatten(-2)


def _geometry(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> _Geometry:
    in_size, kernel = (input.shape[2], input.shape[3]), (weight.shape[2], weight.shape[3])
    out_size = tuple(
        (i + 2 * p - d * (k - 1) - 1) // s + 1
        for i, k, s, p, d in zip(in_size, kernel, stride, padding, dilation, strict=True)
    )
    groups, offset_groups = input.shape[1] // weight.shape[1], offset.shape[1] // (2 * math.prod(kernel))
    return _Geometry(stride, padding, dilation, kernel, in_size, out_size, groups, offset_groups)


class DeformConv2d(nn.Module):
    """A layer around `deform_conv2d`."""

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
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, as torchvision does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002
        """Apply the layer."""
        return deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
