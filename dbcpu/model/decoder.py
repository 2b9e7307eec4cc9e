"""The DB decoders: feature pyramid, adaptive scale fusion (ASF) of DB++, and the two heads.

Names of the modules are the original's: `binarize` is the head of the probability map, `thresh` that of the threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from typing import TypeAlias

    from dbcpu.config import Attention, ModelConfig

    Features: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]  # C2..C5

LEVELS = 4  # P2..P5


def _upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


class ScaleAttention(nn.Module):
    """The three attentions of DB++ (arXiv 2202.10304) over the concatenated levels.

    Args:
        channels: of the input.
        kind: which of them.
    """

    def __init__(self, channels: int, kind: Attention) -> None:
        super().__init__()
        self.kind = kind
        if kind == "scale_channel":
            self.fc1 = nn.Conv2d(channels, channels // 2, 1, bias=False)
            self.bn = nn.BatchNorm2d(channels // 2)
            self.fc2 = nn.Conv2d(channels // 2, LEVELS, 1, bias=False)
            return
        if kind == "scale_channel_spatial":
            # The convolutions stand at 1 and 3 because the original has a pooling and an activation between them.
            self.channel_wise = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(channels, channels // 4, 1, bias=False),
                nn.ReLU(),
                nn.Conv2d(channels // 4, channels, 1, bias=False),
                nn.Sigmoid(),
            )
        self.spatial_wise = nn.Sequential(
            nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False), nn.Sigmoid()
        )
        self.attention_wise = nn.Sequential(nn.Conv2d(channels, LEVELS, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the weights of P5, P4, P3, P2: (B, 4, H, W), or (B, 4, 1, 1) for "scale_channel"."""
        if self.kind == "scale_channel":
            pooled = F.adaptive_avg_pool2d(x, 1)
            logits: Tensor = self.fc2(torch.relu(self.bn(self.fc1(pooled))))
            return logits.softmax(1)
        if self.kind == "scale_channel_spatial":
            x = x + self.channel_wise(x)
        x = x + self.spatial_wise(x.mean(1, keepdim=True))
        weights: Tensor = self.attention_wise(x)
        return weights


class ScaleFusion(nn.Module):
    """`concat_attention` of the original: weighs the four levels against each other, pixel by pixel."""

    def __init__(self, in_channels: int, channels: int, kind: Attention) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.enhanced_attention = ScaleAttention(channels, kind)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """P5, P4, P3, P2 of one resolution, each times its weight."""
        weights = self.enhanced_attention(self.conv(torch.cat(levels, 1)))
        return [level * weights[:, i : i + 1] for i, level in enumerate(levels)]


def _head(in_channels: int, channels: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, channels, 2, stride=2),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, 1, 2, stride=2),
        nn.Sigmoid(),
    )


class Decoder(nn.Module):
    """The heads, over a feature pyramid that subclasses bring.

    Args:
        config: widths, biases, heads.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.inner_channels
        self.serial = config.serial
        self.binarize = _head(inner, inner // LEVELS, bias=config.head_bias)
        self.thresh: nn.Sequential | None = None
        if config.threshold_head:
            self.thresh = _head(inner + int(config.serial), inner // LEVELS, bias=config.decoder_bias)

    def fuse(self, features: Features) -> Tensor:
        """C2..C5 to the fused levels at 1/4, (B, inner_channels, H / 4, W / 4)."""
        raise NotImplementedError

    def forward(self, features: Features) -> Tensor:
        """C2..C5 to the probability map, (B, 1, H, W) in [0, 1]."""
        probability: Tensor = self.binarize(self.fuse(features))
        return probability

    def forward_training(self, features: Features) -> tuple[Tensor, Tensor]:
        """C2..C5 to the probability map and the threshold map, each (B, 1, H, W) in [0, 1].

        Raises:
            RuntimeError: the network was built without its threshold head.
        """
        if self.thresh is None:
            raise RuntimeError("this network has no threshold head: build it with threshold_head=True to train it")
        fused = self.fuse(features)
        probability = self.binarize(fused)
        if self.serial:
            fused = torch.cat([fused, F.interpolate(probability, fused.shape[2:])], 1)
        return probability, self.thresh(fused)


class OriginalDecoder(Decoder):
    """The decoder of the original code, with or without ASF.

    Args:
        in_channels: channels of C2..C5.
        config: widths, biases, attention, heads.
    """

    def __init__(self, in_channels: tuple[int, int, int, int], config: ModelConfig) -> None:
        super().__init__(config)
        inner, bias = config.inner_channels, config.decoder_bias
        c2, c3, c4, c5 = in_channels
        self.in5 = nn.Conv2d(c5, inner, 1, bias=bias)
        self.in4 = nn.Conv2d(c4, inner, 1, bias=bias)
        self.in3 = nn.Conv2d(c3, inner, 1, bias=bias)
        self.in2 = nn.Conv2d(c2, inner, 1, bias=bias)

        def smooth() -> nn.Conv2d:
            return nn.Conv2d(inner, inner // LEVELS, 3, padding=1, bias=bias)

        # The original's upsampling stood at index 1 of these; it has no weights.
        self.out5 = nn.Sequential(smooth())
        self.out4 = nn.Sequential(smooth())
        self.out3 = nn.Sequential(smooth())
        self.out2 = smooth()
        self.concat_attention: ScaleFusion | None = None
        if config.attention != "none":
            self.concat_attention = ScaleFusion(inner, config.attention_channels, config.attention)

    def fuse(self, features: Features) -> Tensor:
        """C2..C5 to the concatenation [p5, p4, p3, p2] at 1/4, (B, inner_channels, H / 4, W / 4)."""
        c2, c3, c4, c5 = features
        in5, in4, in3, in2 = self.in5(c5), self.in4(c4), self.in3(c3), self.in2(c2)
        out4 = _upsample(in5, 2) + in4
        out3 = _upsample(out4, 2) + in3
        out2 = _upsample(out3, 2) + in2
        levels = [
            _upsample(self.out5(in5), 8),
            _upsample(self.out4(out4), 4),
            _upsample(self.out3(out3), 2),
            self.out2(out2),
        ]
        if self.concat_attention is not None:
            levels = self.concat_attention(levels)
        return torch.cat(levels, 1)


class _ConvBnRelu(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class SmoothedNeck(nn.Module):
    """The feature pyramid of DBNet.pytorch, with its parameter names.

    Args:
        in_channels: channels of C2..C5.
        inner: channels of the fused levels.
    """

    def __init__(self, in_channels: tuple[int, int, int, int], inner: int) -> None:
        super().__init__()
        width = inner // LEVELS
        c2, c3, c4, c5 = in_channels
        self.reduce_conv_c2 = _ConvBnRelu(c2, width, 1)
        self.reduce_conv_c3 = _ConvBnRelu(c3, width, 1)
        self.reduce_conv_c4 = _ConvBnRelu(c4, width, 1)
        self.reduce_conv_c5 = _ConvBnRelu(c5, width, 1)
        self.smooth_p4 = _ConvBnRelu(width, width, 3)
        self.smooth_p3 = _ConvBnRelu(width, width, 3)
        self.smooth_p2 = _ConvBnRelu(width, width, 3)
        self.conv = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.ReLU())

    def forward(self, features: Features) -> Tensor:
        """C2..C5 to the fused levels at 1/4; each level is smoothed before it feeds the next one down."""
        c2, c3, c4, c5 = features
        p5 = self.reduce_conv_c5(c5)
        p4 = self.smooth_p4(_upsample(p5, 2) + self.reduce_conv_c4(c4))
        p3 = self.smooth_p3(_upsample(p4, 2) + self.reduce_conv_c3(c3))
        p2 = self.smooth_p2(_upsample(p3, 2) + self.reduce_conv_c2(c2))
        fused: Tensor = self.conv(torch.cat([p2, _upsample(p3, 2), _upsample(p4, 4), _upsample(p5, 8)], 1))
        return fused


class SmoothedDecoder(Decoder):
    """The heads over the feature pyramid of DBNet.pytorch.

    Args:
        in_channels: channels of C2..C5.
        config: widths and heads.
    """

    def __init__(self, in_channels: tuple[int, int, int, int], config: ModelConfig) -> None:
        super().__init__(config)
        self.neck = SmoothedNeck(in_channels, config.inner_channels)

    def fuse(self, features: Features) -> Tensor:
        """C2..C5 to the fused levels at 1/4, (B, inner_channels, H / 4, W / 4)."""
        fused: Tensor = self.neck(features)
        return fused
