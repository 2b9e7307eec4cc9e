"""The deformable 3x3 convolution of a block, for inference on a CPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dbcpu.engine.fused import FusedConv2d
from dbcpu.geometry import Size
from dbcpu.ops.sampling import Sampler, SamplingGrid, corner_weights, sample_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbcpu.model.resnet import DeformableConv3x3

# The samples of a chunk are written and read once, and should stay in the cache between the two; but the weights are
# arranged anew for each.
_CHUNK_BYTES = 8 << 20
# Below this many pixels the arranged weights would have to be rearranged.
_MIN_PIXELS = 64
# Positions and weights are computed for more pixels at once: thirty calls on small tensors, 150 bytes a pixel and tap.
_LOCATED_PIXELS = 1 << 14


class FusedDeformConv:
    """`DeformableConv3x3` with ReLU: the operator's samples, their product by oneDNN, written where it belongs.

    Args:
        conv: with its weights; its batch norm folded.
    """

    def __init__(self, conv: DeformableConv3x3) -> None:
        self._conv = conv
        self._channels = conv.out_channels
        # A product with the samples is a 1x1 convolution over taps x channels.
        rows = conv.weight.detach().permute(0, 2, 3, 1).flatten(1)
        self._product = FusedConv2d(rows[:, :, None, None], conv.bias, typical=(_MIN_PIXELS, 1))
        del conv.weight

    def __call__(self, x: Tensor, packed: Tensor) -> Tensor:
        """Return the ReLU of the convolution.

        Args:
            x: (B, channels, H, W), channels-last.
            packed: see `DeformableConv3x3.forward_packed`.
        """
        out = torch.empty(
            (x.shape[0], self._channels, *self._conv.out_size(x)), dtype=x.dtype, memory_format=torch.channels_last
        )
        for rows, columns in self._samples(out, x, packed):
            rows.copy_(self._product(columns, relu=True)[:, :, : rows.shape[2]])
        return out

    def add_to(self, out: Tensor, x: Tensor, packed: Tensor) -> None:
        """Add the convolution to `out`, (B, channels, Ho, Wo), channels-last, and apply the ReLU to the sum."""
        for rows, columns in self._samples(out, x, packed):
            if rows.shape[2] == columns.shape[2]:
                self._product.add_to(rows, columns, relu=True)
            else:
                rows.add_(self._product(columns)[:, :, : rows.shape[2]]).relu_()

    def _samples(self, out: Tensor, x: Tensor, packed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views (1, channels, pixels, 1) of `out`, and their samples, (1, taps * channels, pixels or more, 1)."""
        offset, logits = self._conv.unpack(x, packed)
        mask = logits.sigmoid() if logits.shape[1] else None
        channels, height, width = x.shape[1:]
        grid = SamplingGrid(
            in_size=Size(height, width),
            out_size=Size(*out.shape[2:]),
            kernel_size=Size(3, 3),
            stride=self._conv.stride,
            padding=(1, 1),
            dilation=(1, 1),
            offset_groups=1,
        )
        sampler = Sampler(grid, x.device)
        sample_bytes = grid.taps * channels * x.element_size()
        for image in range(x.shape[0]):
            one = slice(image, image + 1)
            sources = x[image].permute(1, 2, 0).reshape(-1, channels)
            targets = out[image].permute(1, 2, 0).view(-1, self._channels)
            for first in range(0, grid.pixels, _LOCATED_PIXELS):
                located = slice(first, min(first + _LOCATED_PIXELS, grid.pixels))
                hats = sampler.split(offset[one], located)
                modulation = None if mask is None else grid.unfold_mask(mask[one], located)
                weights = corner_weights(hats, modulation, x.dtype)[0]
                indices = sampler.indices(hats)[0]
                chunks = math.ceil(len(indices) * sample_bytes / _CHUNK_BYTES)
                step = math.ceil(len(indices) / chunks)
                for start in range(0, len(indices), step):
                    rows = targets[first + start : min(first + start + step, located.stop)]
                    samples = sample_rows(sources, indices[start : start + step], weights[start : start + step])
                    matrix = samples.view(len(rows), -1)
                    if len(rows) < _MIN_PIXELS:
                        matrix = F.pad(matrix, (0, 0, 0, _MIN_PIXELS - len(rows)))
                    yield _as_plane(rows), _as_plane(matrix)


def _as_plane(rows: Tensor) -> Tensor:
    """Return (pixels, channels) as the map (1, channels, pixels, 1), channels-last."""
    return rows[None, :, None].permute(0, 3, 1, 2)
