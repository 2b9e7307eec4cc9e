"""The whole network: a backbone and the DB decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from dbcpu.model import mobilenet, resnet
from dbcpu.model.decoder import Decoder, OriginalDecoder, SmoothedDecoder

if TYPE_CHECKING:
    from dbcpu.config import ModelConfig


class Network(nn.Module):
    """A DB or DB++ network; `state_dict()` has the original's names without their `model.module.` prefix."""

    def __init__(self, backbone: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Return the probability map.

        Args:
            x: float (B, 3, H, W), normalised, H and W multiples of 32.

        Returns:
            (B, 1, H, W) in [0, 1]: P(pixel is in a shrunk text kernel).
        """
        probability: Tensor = self.decoder(self.backbone(x))
        return probability

    def forward_training(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability map and the threshold map, each (B, 1, H, W) in [0, 1]."""
        return self.decoder.forward_training(self.backbone(x))


def build_model(config: ModelConfig) -> Network:
    """Build the network that `config` describes, with random weights, ready for training or loading."""
    if config.backbone == "mobilenet_v3_large":
        backbone: nn.Module = mobilenet.MobileNetV3Large()
        channels = mobilenet.OUT_CHANNELS
    else:
        deformation = resnet.Deformation(modulated=config.modulated, offset_stride=config.offset_stride)
        backbone = resnet.ResNet(config.backbone, deformation if config.deformable else None)
        channels = resnet.out_channels(config.backbone)
    kind = OriginalDecoder if config.neck == "original" else SmoothedDecoder
    return Network(backbone, kind(channels, config))
