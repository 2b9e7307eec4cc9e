"""MobileNetV3-large as the original code builds it, with its own parameter names."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

OUT_CHANNELS = (24, 40, 112, 960)
_TAPS = (3, 6, 12, 16)  # C2..C5 are the outputs of these features
_STEM, _LAST = 16, 960


class _Spec(NamedTuple):
    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hswish: bool
    stride: int


_SPECS = tuple(
    _Spec(*row)
    for row in (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    )
)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 4, channels, bias=False),
            nn.Hardsigmoid(),  # relu6(x + 3) / 6
        )

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.fc(x.mean((2, 3)))
        return x * scale[:, :, None, None]


class _InvertedResidual(nn.Module):
    def __init__(self, inplanes: int, spec: _Spec) -> None:
        super().__init__()
        self.residual = spec.stride == 1 and inplanes == spec.out
        activation = nn.Hardswish if spec.hswish else nn.ReLU
        # Indices are part of the parameter names: the squeeze-excite stands at 5, before its activation.
        self.conv = nn.Sequential(
            nn.Conv2d(inplanes, spec.expanded, 1, bias=False),
            nn.BatchNorm2d(spec.expanded),
            activation(),
            nn.Conv2d(
                spec.expanded,
                spec.expanded,
                spec.kernel,
                stride=spec.stride,
                padding=spec.kernel // 2,
                groups=spec.expanded,
                bias=False,
            ),
            nn.BatchNorm2d(spec.expanded),
            _SqueezeExcite(spec.expanded) if spec.squeeze else nn.Identity(),
            activation(),
            nn.Conv2d(spec.expanded, spec.out, 1, bias=False),
            nn.BatchNorm2d(spec.out),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


def _conv_bn_hswish(inplanes: int, planes: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inplanes, planes, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(planes),
        nn.Hardswish(),
    )


class MobileNetV3Large(nn.Module):
    """MobileNetV3-large without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv_bn_hswish(3, _STEM, 3, 2)]
        inplanes = _STEM
        for spec in _SPECS:
            features.append(_InvertedResidual(inplanes, spec))
            inplanes = spec.out
        features.append(_conv_bn_hswish(inplanes, _LAST, 1, 1))
        self.features = nn.Sequential(*features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W), H and W multiples of 32, to C2..C5 at 1/4, 1/8, 1/16 and 1/32."""
        taps = []
        for index, feature in enumerate(self.features):
            x = feature(x)
            if index in _TAPS:
                taps.append(x)
        c2, c3, c4, c5 = taps
        return c2, c3, c4, c5
