"""ResNet's blocks with fused convolutions: activations and sums happen while the results are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dbcpu.engine.deformable import FusedDeformConv
from dbcpu.engine.fused import FusedConv2d
from dbcpu.model.resnet import BasicBlock, Bottleneck, DeformableConv3x3

if TYPE_CHECKING:
    from torch import Tensor


class _Middle:
    """The 3x3 convolution of a block, deformable or not."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        offset = block.conv2_offset
        self._offset_conv = None if offset is None else FusedConv2d.of(offset)
        conv = block.conv2
        self._conv = FusedDeformConv(conv) if isinstance(conv, DeformableConv3x3) else FusedConv2d.of(conv)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution, and the ReLU of it."""
        if isinstance(self._conv, FusedConv2d):
            return self._conv(x, relu=True)
        return self._conv(x, self._offsets(x))

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Add the convolution to `out`, and apply the ReLU."""
        if isinstance(self._conv, FusedConv2d):
            self._conv.add_to(out, x, relu=True)
        else:
            self._conv.add_to(out, x, self._offsets(x))

    def _offsets(self, x: Tensor) -> Tensor:
        if self._offset_conv is None:
            raise TypeError("a deformable convolution needs one for its offsets")
        return self._offset_conv(x.to(self._offset_conv.dtype))


class FusedBlock(nn.Module):
    """A residual block with its batch norms folded, of either kind.

    Its input is overwritten where the block has no downsampling: nothing else may need it.

    Args:
        block: of the network; not needed any more.
    """

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        self._first = FusedConv2d.of(block.conv1)
        self._middle = _Middle(block)
        self._last = FusedConv2d.of(block.conv3) if isinstance(block, Bottleneck) else None
        projection = None if block.downsample is None else block.downsample[0]
        self._downsample = FusedConv2d.of(projection) if isinstance(projection, nn.Conv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W), channels-last, to (B, planes * expansion, H / stride, W / stride)."""
        out = self._first(x, relu=True)
        if self._last is not None:
            out = self._middle(out)
        residual = x if self._downsample is None else self._downsample(x)
        if self._last is not None:
            self._last.add_to(residual, out, relu=True)
        else:
            self._middle.add_to(residual, out)
        return residual
