"""A built network turned into its fast form, once, at load."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from dbcpu.engine.folding import fold_batch_norms
from dbcpu.engine.head import ComposedDecoder, can_compose
from dbcpu.engine.offsets import drop_unread_planes
from dbcpu.engine.residual import FusedBlock
from dbcpu.engine.stem import BandedStem
from dbcpu.model.decoder import OriginalDecoder
from dbcpu.model.resnet import BasicBlock, Bottleneck, ResNet

if TYPE_CHECKING:
    from dbcpu.model.network import Network


def prepare(network: Network, dtype: torch.dtype = torch.float32, *, fuse: bool = True) -> nn.Module:
    """Return the fast form of a network; `network` is changed and must not be used any more.

    Args:
        network: with its weights, in evaluation mode.
        dtype: to compute in; coordinates of deformable convolutions stay float32 in any case.
        fuse: False keeps to plain operators, for compilers.

    Returns:
        A module from normalised float (B, 3, H, W) to the probability map, float32 (B, 1, H, W): the same numbers but
        for rounding.
    """
    fold_batch_norms(network)
    drop_unread_planes(network)
    decoder: nn.Module = network.decoder
    if isinstance(decoder, OriginalDecoder) and can_compose(decoder):
        decoder = ComposedDecoder(decoder, dtype, fuse=fuse)
    fast = nn.Sequential(network.backbone, decoder).requires_grad_(False)
    coordinates = [module for name, module in fast.named_modules() if name.endswith("conv2_offset")]
    kept = [copy.deepcopy(module) for module in coordinates]
    fast.to(dtype)
    for module, in_float32 in zip(coordinates, kept, strict=True):
        module.to(torch.float32).load_state_dict(in_float32.state_dict())
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fuse and isinstance(network.backbone, ResNet):
        fast[0] = _FusedResNet(network.backbone)
    return fast


class _FusedResNet(nn.Module):
    """The backbone with fused convolutions; `backbone` is taken apart."""

    def __init__(self, backbone: ResNet) -> None:
        super().__init__()
        self.stem = BandedStem(backbone)
        self.layers = nn.ModuleList([backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4])
        for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
            for index, block in enumerate(layer):  # in place, so that no more than one block is there twice
                layer[index] = FusedBlock(cast("BasicBlock | Bottleneck", block))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W), H and W multiples of 32, to C2..C5."""
        x = self.stem(x)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return tuple(features)
