"""ResNet backbones, plain and with deformable convolutions in layers 2-4.

Parameter names are the original code's, so that its checkpoints load name for name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from dbcpu.ops import DeformConv2d

if TYPE_CHECKING:
    from dbcpu.config import OffsetStride

TAPS = 9  # of a 3x3 kernel
OFFSET_CHANNELS = 2 * TAPS  # dy and dx of each tap, interleaved
MASK_CHANNELS = TAPS


class Layout(NamedTuple):
    """How many blocks each of the four layers has, and of which kind."""

    bottleneck: bool
    blocks: tuple[int, int, int, int]


LAYOUTS = {
    "resnet18": Layout(bottleneck=False, blocks=(2, 2, 2, 2)),
    "resnet34": Layout(bottleneck=False, blocks=(3, 4, 6, 3)),
    "resnet50": Layout(bottleneck=True, blocks=(3, 4, 6, 3)),
    "resnet101": Layout(bottleneck=True, blocks=(3, 4, 23, 3)),
    "resnet152": Layout(bottleneck=True, blocks=(3, 8, 36, 3)),
}


def out_channels(backbone: str) -> tuple[int, int, int, int]:
    """Return the channels of C2..C5 of the ResNet named `backbone`."""
    expansion = 4 if LAYOUTS[backbone].bottleneck else 1
    return (64 * expansion, 128 * expansion, 256 * expansion, 512 * expansion)


def read_with_output_plane(full: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Read a map as the original CUDA code does where its offset convolution has no stride but the operator has one.

    The kernel takes the memory of the full-resolution map, picture by picture, with the plane size of the *output*.
    Networks were trained through this, so inference has to do the same.

    Args:
        full: (B, C, H, W), the map at the input's resolution, or as many of its first channels as are read.
        channels: C of the whole map.
        height: of the output, <= H.
        width: of the output, <= W.

    Returns:
        (B, channels, height, width): the first channels * height * width numbers of each picture.
    """
    return full.flatten(1)[:, : channels * height * width].reshape(-1, channels, height, width)


def planes_read(channels: int) -> int:
    """Return how many of a map's channels `read_with_output_plane` reads where both sides of the output are half."""
    return -(-channels // 4)


class DeformableConv3x3(DeformConv2d):
    """The deformable 3x3 convolution of a block, without bias; offsets and mask come from `conv2_offset`.

    Args:
        channels: in and out.
        stride: of the sampling grid.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride=stride, padding=1, bias=False)

    def forward_packed(self, x: Tensor, packed: Tensor) -> Tensor:
        """Apply the operator with the channels of `conv2_offset`.

        Args:
            x: (B, channels, H, W).
            packed: 18 offsets, then 9 mask logits where the convolution is modulated, (B, 27 or 18, Ho, Wo); or with
                H x W planes, from an offset convolution without the operator's stride: then its memory is read as
                the original does. Of those planes, the ones that are never read may be missing, see `planes_read`.
        """
        offset, logits = self.unpack(x, packed)
        out: Tensor = self(x, offset, logits.sigmoid() if logits.shape[1] else None)
        return out

    def out_size(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of the output."""
        height, width = ((side - 1) // self.stride[0] + 1 for side in x.shape[-2:])
        return height, width

    def unpack(self, x: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the offsets, (B, 18, Ho, Wo), and the mask's logits, (B, 9 or 0, Ho, Wo); args of `forward_packed`."""
        height, width = self.out_size(x)
        if packed.shape[-2:] == (height, width):
            return packed[:, :OFFSET_CHANNELS], packed[:, OFFSET_CHANNELS:]
        of_offset = OFFSET_CHANNELS if packed.shape[1] >= OFFSET_CHANNELS else planes_read(OFFSET_CHANNELS)
        offset = read_with_output_plane(packed[:, :of_offset], OFFSET_CHANNELS, height, width)
        logits = packed[:, of_offset:]
        if logits.shape[1]:
            logits = read_with_output_plane(logits, MASK_CHANNELS, height, width)
        return offset, logits


def _offset_conv(channels: int, stride: int, *, modulated: bool) -> nn.Conv2d:
    out_channels = OFFSET_CHANNELS + (MASK_CHANNELS if modulated else 0)
    conv = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1)
    nn.init.zeros_(conv.weight)  # training starts as a plain convolution, with all masks at one half
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


@dataclass(frozen=True, kw_only=True)
class Deformation:
    """How the deformable convolutions of a network are made.

    Attributes:
        modulated: whether they have masks.
        offset_stride: see `ModelConfig`.
    """

    modulated: bool
    offset_stride: OffsetStride


class _Block(nn.Module):
    """What the two kinds of residual blocks share: the 3x3 convolution `conv2`, deformable or not."""

    conv2: nn.Conv2d | DeformableConv3x3

    def __init__(self, planes: int, stride: int, deformation: Deformation | None) -> None:
        super().__init__()
        self.conv2_offset: nn.Conv2d | None = None
        if deformation is not None:
            offset_stride = stride if deformation.offset_stride == "strided" else 1
            self.conv2_offset = _offset_conv(planes, offset_stride, modulated=deformation.modulated)
            self.conv2 = DeformableConv3x3(planes, stride)
        else:
            self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def _conv2(self, x: Tensor) -> Tensor:
        if self.conv2_offset is not None and isinstance(self.conv2, DeformableConv3x3):
            # Coordinates may be kept in a higher precision than the rest.
            packed = self.conv2_offset(x.to(self.conv2_offset.weight.dtype))
            x = self.conv2.forward_packed(x, packed)
        else:
            x = self.conv2(x)
        out: Tensor = self.bn2(x)
        return out


def _downsample(inplanes: int, planes: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inplanes == planes:
        return None
    return nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))


class BasicBlock(_Block):
    """Two 3x3 convolutions; the first has the stride, the second may be deformable."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int, deformation: Deformation | None) -> None:
        super().__init__(planes, 1, deformation)
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(inplanes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) to (B, planes, H / stride, W / stride)."""
        out = F.relu_(self.bn1(self.conv1(x)))
        residual = x if self.downsample is None else self.downsample(x)
        return F.relu_(self._conv2(out).add_(residual))


class Bottleneck(_Block):
    """1x1, 3x3, 1x1; the 3x3 has the stride and may be deformable."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, deformation: Deformation | None) -> None:
        super().__init__(planes, stride, deformation)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _downsample(inplanes, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        out = F.relu_(self._conv2(F.relu_(self.bn1(self.conv1(x)))))
        residual = x if self.downsample is None else self.downsample(x)
        return F.relu_(self.bn3(self.conv3(out)).add_(residual))


class ResNet(nn.Module):
    """ResNet without its classifier.

    Args:
        name: key of `LAYOUTS`.
        deformation: of the 3x3 convolutions in layers 2-4; None leaves them plain.
    """

    def __init__(self, name: str, deformation: Deformation | None) -> None:
        super().__init__()
        layout = LAYOUTS[name]
        kind = Bottleneck if layout.bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        def layer(index: int, inplanes: int) -> nn.Sequential:
            planes = 64 << index
            blocks = [
                kind(
                    planes * kind.expansion if i else inplanes,
                    planes,
                    2 if index and not i else 1,
                    deformation if index else None,
                )
                for i in range(layout.blocks[index])
            ]
            return nn.Sequential(*blocks)

        channels = out_channels(name)
        self.layer1 = layer(0, 64)
        self.layer2 = layer(1, channels[0])
        self.layer3 = layer(2, channels[1])
        self.layer4 = layer(3, channels[2])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W), H and W multiples of 32, to C2..C5 at 1/4, 1/8, 1/16 and 1/32."""
        x = self.maxpool(F.relu_(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)
