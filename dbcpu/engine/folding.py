"""Batch norms folded into the convolutions before them; what is left of each is an identity."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dbcpu.ops import DeformConv2d

if TYPE_CHECKING:
    from collections.abc import Iterator

    Convolution = nn.Conv2d | nn.ConvTranspose2d | DeformConv2d


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution, in place.

    Args:
        network: in evaluation mode, with its weights; deformable and transposed convolutions included.
    """
    for parent, conv_name, norm_name in list(_pairs(network)):
        conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
        if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d, DeformConv2d)) and isinstance(norm, nn.BatchNorm2d):
            _fold(conv, norm)
            setattr(parent, norm_name, nn.Identity())


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield (parent, convolution, batch norm): neighbours in a sequence, or attributes called `conv1` and `bn1`."""
    for parent in network.modules():
        names = [name for name, _ in parent.named_children()]
        if isinstance(parent, nn.Sequential):
            for first, second in pairwise(names):
                yield parent, first, second
            continue
        for name in names:
            norm = name.replace("conv", "bn")
            if name.startswith("conv") and norm in names:
                yield parent, name, norm


def _fold(conv: Convolution, norm: nn.BatchNorm2d) -> None:
    # Scale and shift in float64, so that the product with the weights is the only rounding of note.
    mean, variance = _double(norm.running_mean), _double(norm.running_var)
    scale = _double(norm.weight) / (variance + norm.eps).sqrt()
    bias = 0 if conv.bias is None else _double(conv.bias)
    folded = (bias - mean) * scale + _double(norm.bias)
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(conv.weight * scale.to(dtype).view(shape), requires_grad=False)
    conv.bias = nn.Parameter(folded.to(dtype), requires_grad=False)


def _double(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("a batch norm without statistics cannot be folded")
    return tensor.detach().to(torch.float64)
