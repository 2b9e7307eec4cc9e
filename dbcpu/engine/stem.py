"""ResNet's stem in bands of rows: the map between convolution and pooling, the network's largest, never exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dbcpu.engine.fused import FusedConv2d

if TYPE_CHECKING:
    from dbcpu.model.resnet import ResNet

# Rows of the result that are computed together: those of the map between stay in the cache.
_BAND = 16


class BandedStem(nn.Module):
    """The 7x7 convolution with its ReLU, and the 3x3 max pooling, both of stride 2.

    Args:
        backbone: with its first batch norm folded.
    """

    def __init__(self, backbone: ResNet) -> None:
        super().__init__()
        self._conv = FusedConv2d(backbone.conv1.weight, backbone.conv1.bias, stride=2, typical=(39, 742))
        self._channels = backbone.conv1.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), H and W multiples of 4, to (B, 64, H / 4, W / 4), channels-last."""
        batch, _, height, width = x.shape
        padded = F.pad(x, (3, 3, 3, 3))
        out = torch.empty(
            (batch, self._channels, height // 4, width // 4), dtype=x.dtype, memory_format=torch.channels_last
        )
        for first in range(0, height // 4, _BAND):
            band = out[:, :, first : first + _BAND].permute(0, 2, 3, 1)
            # Row r of the result is the largest of rows 2r - 1, 2r and 2r + 1 between; row i of those sees 7 from 2i.
            above = min(first, 1)
            start, stop = 2 * (2 * first - above), 2 * 2 * (first + band.shape[1]) + 5
            between = self._conv(padded[:, :, start:stop]).permute(0, 2, 3, 1)
            _pool(between, band, above)
        return out.relu_()


def _pool(x: Tensor, out: Tensor, above: int) -> None:
    """Write the largest of 3x3 neighbours, at every second row and column, into `out`.

    Args:
        x: (B, above + 2 * h, 2 * w, channels).
        out: (B, h, w, channels).
        above: 1 where `x` starts with the row above the first neighbourhood's middle one, 0 where there is none.
    """
    rows = torch.maximum(x[:, above::2], x[:, above + 1 :: 2])
    if above:
        torch.maximum(rows, x[:, :-1:2], out=rows)
    else:
        torch.maximum(rows[:, 1:], x[:, 1:-1:2], out=rows[:, 1:])
    torch.maximum(rows[:, :, ::2], rows[:, :, 1::2], out=out)
    torch.maximum(out[:, :, 1:], rows[:, :, 1:-1:2], out=out[:, :, 1:])
