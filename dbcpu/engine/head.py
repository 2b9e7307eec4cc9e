"""The original's decoder without attention, in less than two thirds of its arithmetic.

From C2..C5 to the first batch norm of the probability head everything is linear. So the 1x1 laterals compose with the
3x3 convolutions after them, a concatenation before a convolution splits into a sum, and convolutions of upsampled maps
are computed where the pixels still differ (`upsampled.py`). The sums are the original's up to rounding.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dbcpu.engine.fused import FusedConv2d
from dbcpu.engine.upsampled import UpsampledConv3x3

if TYPE_CHECKING:
    from dbcpu.model.decoder import OriginalDecoder

# Pixels whose 256 intermediate channels stay in the cache between the two transposed convolutions.
_TAIL_PIXELS = 1024


def can_compose(decoder: OriginalDecoder) -> bool:
    """Whether the head is linear as described: attention multiplies, and biases do not commute with zero padding."""
    return decoder.concat_attention is None and decoder.in5.bias is None


class ComposedDecoder(nn.Module):
    """The probability map from C2..C5, as `OriginalDecoder` gives it.

    Args:
        decoder: with its batch norms folded, in float32, and for which `can_compose` holds.
        dtype: to compute in.
        fuse: False keeps to plain operators, for compilers.
    """

    def __init__(self, decoder: OriginalDecoder, dtype: torch.dtype, *, fuse: bool = True) -> None:
        super().__init__()
        in2, in3 = _matrix(decoder.in2), _matrix(decoder.in3)
        smooth2, smooth3 = decoder.out2.weight.double(), _first(decoder.out3).weight.double()
        first = _first(decoder.binarize)
        # original: the concatenation is [p5, p4, p3, p2]
        of_p5, of_p4, of_p3, of_p2 = first.weight.double().chunk(4, dim=1)

        def conv(given: nn.Conv2d) -> FusedConv2d:
            return FusedConv2d.of(given, dtype=dtype, fuse=fuse)

        def conv3x3(weight: Tensor, bias: Tensor | None = None) -> FusedConv2d:
            bias = None if bias is None else bias.to(dtype)
            return FusedConv2d(weight.to(dtype), bias, padding=(1, 1), fuse=fuse, typical=(184, 184))

        def upsampled(weight: Tensor, factor: int) -> UpsampledConv3x3:
            return UpsampledConv3x3(weight, factor, dtype, fuse=fuse)

        self.in5, self.in4 = conv(decoder.in5), conv(decoder.in4)
        self.out5, self.out4 = conv(_first(decoder.out5)), conv(_first(decoder.out4))
        self.p2_of_c2 = conv3x3(_compose(smooth2, in2))
        self.in3: FusedConv2d | None = None
        if decoder.in3.in_channels < decoder.in3.out_channels:
            self.p3_of_c3 = conv3x3(_compose(smooth3, in3))
            self.p3_of_out4 = upsampled(smooth3, 2)
            self.p2_of_c3 = upsampled(_compose(smooth2, in3), 2)
            self.p2_of_out4 = upsampled(smooth2, 4)
        else:  # a lateral that narrows is better not composed: it would make the two convolutions after it wider
            self.in3 = conv(decoder.in3)
            self.p3_of_out3 = conv3x3(smooth3)
            self.p2_of_out3 = upsampled(smooth2, 2)
        self.first_of_p2 = conv3x3(of_p2, first.bias)
        self.first_of_p3 = upsampled(of_p3, 2)
        self.first_of_p4 = upsampled(of_p4, 4)
        self.first_of_p5 = upsampled(of_p5, 8)
        self.tail = Tail(decoder.binarize, dtype, fuse=fuse)

    def forward(self, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """C2..C5, channels-last, to the probability map, float32 (B, 1, H, W) in [0, 1]."""
        c2, c3, c4, c5 = features
        in5 = self.in5(c5)
        out4 = _upsample(in5)
        self.in4.add_to(out4, c4)
        p2 = self.p2_of_c2(c2)
        if self.in3 is None:
            p3 = self.p3_of_c3(c3)
            self.p3_of_out4.add_to(p3, out4)
            self.p2_of_c3.add_to(p2, c3)
            self.p2_of_out4.add_to(p2, out4)
        else:
            out3 = _upsample(out4)
            self.in3.add_to(out3, c3)
            p3 = self.p3_of_out3(out3)
            self.p2_of_out3.add_to(p2, out3)
        first = self.first_of_p2(p2)
        self.first_of_p3.add_to(first, p3)
        self.first_of_p4.add_to(first, self.out4(out4))
        self.first_of_p5.add_to(first, self.out5(in5))
        probability: Tensor = self.tail(first.relu_())
        return probability


class Tail(nn.Module):
    """The two transposed convolutions of the probability head, 2x2 with stride 2: no output pixel has two sources.

    So both are matrix products at the resolution of the input, and only the last, single channel is moved into place.
    """

    def __init__(self, binarize: nn.Sequential, dtype: torch.dtype, *, fuse: bool) -> None:
        super().__init__()
        first, second = (m for m in binarize if isinstance(m, nn.ConvTranspose2d))
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias
        # (in, out, 2, 2) to outputs (2, 2, out); the second sees those of each place apart from the others.
        rows = first.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)
        self._first = FusedConv2d(rows[:, :, None, None].to(dtype), bias.repeat(4).to(dtype), fuse=fuse)
        apart = torch.kron(torch.eye(4), second.weight.detach().flatten(1).t().contiguous())
        self._second = FusedConv2d(apart[:, :, None, None].to(dtype), None, fuse=fuse)
        self._second_bias = 0.0 if second.bias is None else float(second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), channels-last, to float32 (B, 1, 4 * H, 4 * W) in [0, 1]."""
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(1, -1, 1, channels).permute(0, 3, 1, 2)
        logits = torch.empty((1, 16, pixels.shape[2], 1), dtype=x.dtype, memory_format=torch.channels_last)
        for start in range(0, pixels.shape[2], _TAIL_PIXELS):
            some = slice(start, start + _TAIL_PIXELS)
            logits[:, :, some] = self._second(self._first(pixels[:, :, some], relu=True))
        # (B, H, W, 2, 2, 2, 2): a pixel, its place in the first 2x2, its place in the second
        places = logits[0, :, :, 0].t().view(batch, height, width, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        maps = torch.empty(places.shape)
        for column in itertools.product((0, 1), (0, 1)):  # in one copy, the innermost loop would have two elements
            maps[..., column[0], column[1]] = places[..., column[0], column[1]]
        return maps.view(batch, 1, 4 * height, 4 * width).add_(self._second_bias).sigmoid_()


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _first(sequence: nn.Sequential) -> nn.Conv2d:
    conv = sequence[0]
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"expected a convolution, found {type(conv).__name__}")
    return conv


def _matrix(lateral: nn.Conv2d) -> Tensor:
    return lateral.weight.double().flatten(1)


def _compose(smooth: Tensor, lateral: Tensor) -> Tensor:
    """Return the weight of the 3x3 convolution `smooth` after the 1x1 convolution `lateral`."""
    return torch.einsum("oikl,ic->ockl", smooth, lateral)
