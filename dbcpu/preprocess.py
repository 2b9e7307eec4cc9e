"""From a picture to the network's input, bit for bit as the original code makes it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from dbcpu.errors import ImageError
from dbcpu.geometry import Size

if TYPE_CHECKING:
    import numpy.typing as npt

    from dbcpu.config import PreprocessConfig

logger = logging.getLogger(__name__)

NETWORK_MULTIPLE = 32  # C5, the deepest feature map, is 1/32 of the network's input
# Some 0.6 GB of memory per megapixel of input: a strip of 10000 x 20 pixels must fail by name, not by the machine.
MAX_NETWORK_PIXELS = 32_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkInput:
    """What the network takes, and the two frames it joins.

    Attributes:
        tensor: float32 (1, 3, Hn, Wn), normalised.
        network_size: (Hn, Wn), both multiples of 32.
        image_size: size of the picture it was made from.
    """

    tensor: torch.Tensor
    network_size: Size
    image_size: Size


def network_size(config: PreprocessConfig, image_size: Size) -> Size:
    """Return the size that a picture is resized to, both sides multiples of 32.

    A free side is `ceil(target / fixed * free / 32) * 32`, evaluated in this order in floating point, as the original
    does; a target that is no multiple of 32 is rounded up first, which the original does not survive.
    """
    height, width = image_size
    if config.resize == "exact":
        return Size(_round_up(config.height or 0), _round_up(config.width or 0))
    if config.resize == "height":
        target = _round_up(config.height or 0)
        return Size(target, _round_up(target / height * width))
    target = _round_up(config.short_side)
    if height < width:
        return Size(target, _round_up(target / height * width))
    return Size(_round_up(target / width * height), target)


def _round_up(pixels: float) -> int:
    return max(1, math.ceil(pixels / NETWORK_MULTIPLE)) * NETWORK_MULTIPLE


def rounded_targets(config: PreprocessConfig) -> dict[str, tuple[int, int]]:
    """Return the configured sides that are no multiples of 32, by field name, with what they are rounded up to."""
    used = {"short_side": ("short_side",), "height": ("height",), "exact": ("height", "width")}[config.resize]
    sides = {name: getattr(config, name) for name in used}
    return {name: (side, _round_up(side)) for name, side in sides.items() if side % NETWORK_MULTIPLE}


def preprocess(pixels_bgr: npt.NDArray[np.uint8], config: PreprocessConfig, *, name: str = "image") -> NetworkInput:
    """Resize and normalise a picture.

    Args:
        pixels_bgr: uint8 (H, W, 3), blue first, any size.
        config: resize rule and normalisation.
        name: of the picture, for messages.

    Raises:
        ImageError: the picture is so elongated that the resized one would not fit into memory.
    """
    image_size = Size(*pixels_bgr.shape[:2])
    target = network_size(config, image_size)
    if target.height * target.width > MAX_NETWORK_PIXELS:
        raise ImageError(
            f"a picture of {image_size.width}x{image_size.height} would become {target.width}x{target.height} for the "
            f"network, over its limit of {MAX_NETWORK_PIXELS // 1_000_000} megapixels",
            where=name,
            remedy="choose a smaller working size with --size or --short-side",
        )
    # original: the resize comes first and works on float32 pixels.
    resized = cv2.resize(pixels_bgr.astype(np.float32), (target.width, target.height), interpolation=cv2.INTER_LINEAR)
    if config.channels == "rgb":
        resized = resized[:, :, ::-1]
    normalised = np.empty((3, *target), np.float32)
    for channel in range(3):
        # One rounding from float64 to float32 for mean and std, then the division in float32.
        plane = resized[:, :, channel].astype(np.float64)
        plane -= config.mean[channel]
        plane /= config.std[channel]
        np.divide(plane.astype(np.float32), np.float32(config.scale), out=normalised[channel])
    return NetworkInput(tensor=torch.from_numpy(normalised)[None], network_size=target, image_size=image_size)
