"""A built network turned into its fast form, once, at load."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from dbcpu.engine.folding import fold_batch_norms
from dbcpu.engine.head import ComposedDecoder, can_compose
from dbcpu.model.decoder import OriginalDecoder

if TYPE_CHECKING:
    from dbcpu.model.network import Network


def prepare(network: Network, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the fast form of a network; `network` is changed and must not be used any more.

    Args:
        network: with its weights, in evaluation mode.
        dtype: to compute in; coordinates of deformable convolutions stay float32 in any case.

    Returns:
        A module from normalised float (B, 3, H, W) to the probability map, float32 (B, 1, H, W): the same numbers but
        for rounding.
    """
    fold_batch_norms(network)
    decoder: nn.Module = network.decoder
    if isinstance(decoder, OriginalDecoder) and can_compose(decoder):
        decoder = ComposedDecoder(decoder)
    fast = nn.Sequential(network.backbone, decoder).requires_grad_(False)
    coordinates = [module for name, module in fast.named_modules() if name.endswith("conv2_offset")]
    kept = [copy.deepcopy(module) for module in coordinates]
    fast.to(dtype)
    for module, in_float32 in zip(coordinates, kept, strict=True):
        module.to(torch.float32).load_state_dict(in_float32.state_dict())
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
