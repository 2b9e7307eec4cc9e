"""Offset convolutions of the original's stride-2 blocks without the planes that are never read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dbcpu.model.resnet import MASK_CHANNELS, OFFSET_CHANNELS, DeformableConv3x3, planes_read

if TYPE_CHECKING:
    from torch import Tensor


def drop_unread_planes(network: nn.Module) -> None:
    """Shrink, in place, the offset convolutions whose memory is read with a smaller plane size.

    They run at the resolution before the stride, 27 planes of which 4.5 and 2.25 are read: 8 are left. The sides of
    their inputs must be even, as those of all but the last feature map are.

    Args:
        network: with its weights.
    """
    for block in network.modules():
        conv, offset = getattr(block, "conv2", None), getattr(block, "conv2_offset", None)
        if not isinstance(conv, DeformableConv3x3) or not isinstance(offset, nn.Conv2d) or conv.stride == offset.stride:
            continue
        modulated = offset.out_channels > OFFSET_CHANNELS
        read = list(range(planes_read(OFFSET_CHANNELS)))
        read += [OFFSET_CHANNELS + plane for plane in range(planes_read(MASK_CHANNELS))] if modulated else []
        offset.weight = _kept(offset.weight, read)
        offset.bias = None if offset.bias is None else _kept(offset.bias, read)
        offset.out_channels = len(read)


def _kept(parameter: Tensor, rows: list[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[rows], requires_grad=False)
