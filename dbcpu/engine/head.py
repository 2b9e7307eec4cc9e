"""The original's decoder without attention, in less than two thirds of its arithmetic.

From C2..C5 to the first batch norm of the probability head everything is linear. So the 1x1 laterals compose with the
3x3 convolutions after them, a concatenation before a convolution splits into a sum, and convolutions of upsampled maps
are computed where the pixels still differ (`upsampled.py`). The sums are the original's up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        decoder: with its batch norms folded, and for which `can_compose` holds.
    """

    def __init__(self, decoder: OriginalDecoder) -> None:
        super().__init__()
        dtype = decoder.in5.weight.dtype
        in2, in3 = _matrix(decoder.in2), _matrix(decoder.in3)
        smooth2, smooth3 = decoder.out2.weight.double(), _first(decoder.out3).weight.double()
        first = _first(decoder.binarize)
        # original: the concatenation is [p5, p4, p3, p2]
        of_p5, of_p4, of_p3, of_p2 = first.weight.double().chunk(4, dim=1)
        self.in5, self.in4 = decoder.in5, decoder.in4
        self.out5, self.out4 = _first(decoder.out5), _first(decoder.out4)
        self.p3_of_c3 = _conv3x3(_compose(smooth3, in3), dtype)
        self.p3_of_out4 = UpsampledConv3x3(smooth3, 2, dtype)
        self.p2_of_c2 = _conv3x3(_compose(smooth2, in2), dtype)
        self.p2_of_c3 = UpsampledConv3x3(_compose(smooth2, in3), 2, dtype)
        self.p2_of_out4 = UpsampledConv3x3(smooth2, 4, dtype)
        self.first_of_p2 = _conv3x3(of_p2, dtype, first.bias)
        self.first_of_p3 = UpsampledConv3x3(of_p3, 2, dtype)
        self.first_of_p4 = UpsampledConv3x3(of_p4, 4, dtype)
        self.first_of_p5 = UpsampledConv3x3(of_p5, 8, dtype)
        self.tail = _Tail(decoder.binarize)

    def forward(self, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """C2..C5, channels-last, to the probability map, float32 (B, 1, H, W) in [0, 1]."""
        c2, c3, c4, c5 = features
        in5 = self.in5(c5)
        out4 = self.in4(c4) + F.interpolate(in5, scale_factor=2.0, mode="nearest")
        p3 = self.p3_of_c3(c3)
        self.p3_of_out4.add_to(p3, out4)
        p2 = self.p2_of_c2(c2)
        self.p2_of_c3.add_to(p2, c3)
        self.p2_of_out4.add_to(p2, out4)
        first = self.first_of_p2(p2)
        self.first_of_p3.add_to(first, p3)
        self.first_of_p4.add_to(first, self.out4(out4))
        self.first_of_p5.add_to(first, self.out5(in5))
        probability: Tensor = self.tail(first.relu_())
        return probability


class _Tail(nn.Module):
    """The two transposed convolutions of the probability head, 2x2 with stride 2: no output pixel has two sources.

    So both are matrix products at the resolution of the input, and only the last, single channel is moved into place.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor

    def __init__(self, binarize: nn.Sequential) -> None:
        super().__init__()
        first, second = (m for m in binarize if isinstance(m, nn.ConvTranspose2d))
        bias = torch.zeros(first.out_channels) if first.bias is None else first.bias
        # (in, out, 2, 2) to rows (2, 2, out)
        self.register_buffer("first", first.weight.detach().permute(2, 3, 1, 0).flatten(0, 2).contiguous())
        self.register_buffer("first_bias", bias.detach().repeat(4).to(first.weight.dtype))
        self.register_buffer("second", second.weight.detach().flatten(1).t().contiguous())
        self.second_bias = 0.0 if second.bias is None else float(second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), channels-last, to float32 (B, 1, 4 * H, 4 * W) in [0, 1]."""
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
        logits = torch.empty(len(rows) * 4, 4, dtype=x.dtype)
        for start in range(0, len(rows), _TAIL_PIXELS):
            hidden = F.linear(rows[start : start + _TAIL_PIXELS], self.first, self.first_bias).relu_()
            hidden = hidden.view(-1, channels)
            torch.mm(hidden, self.second.t(), out=logits[4 * start : 4 * start + len(hidden)])
        # (B, H, W, 2, 2, 2, 2): a pixel, its place in the first 2x2, its place in the second
        places = logits.view(batch, height, width, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        maps = places.reshape(batch, 1, 4 * height, 4 * width).to(torch.float32)
        return maps.add_(self.second_bias).sigmoid_()


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


def _conv3x3(weight: Tensor, dtype: torch.dtype, bias: Tensor | None = None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=bias is not None, device="meta")
    layout = torch.channels_last
    conv.weight = nn.Parameter(weight.to(dtype).contiguous(memory_format=layout), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return conv
