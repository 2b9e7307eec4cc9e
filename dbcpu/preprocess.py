"""From a picture to the network's input, bit for bit as the original code makes it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from dbcpu.errors import ImageError
from dbcpu.geometry import Size

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from dbcpu.config import PreprocessConfig

logger = logging.getLogger(__name__)

NETWORK_MULTIPLE = 32  # C5, the deepest feature map, is 1/32 of the network's input
# Some 0.6 GB of memory per megapixel of input: a strip of 10000 x 20 pixels must fail by name, not by the machine.
MAX_NETWORK_PIXELS = 32_000_000
# Pictures so many times longer than wide are over the limit for no other reason, and are made to fit with fewer pixels.
_ELONGATED = 16
_ELONGATED_PIXELS = 4_000_000
# Resized in bands above this size: 4 bytes more for each sample of a page of 10000 x 14000 pixels are 1.7 GB. It is
# also faster, since a band stays in the cache.
_BANDED_PIXELS = 1_000_000
_BAND_PIXELS = 100_000
_PAPER_RATIO = math.sqrt(2)  # of ISO 216: the long side by the short one
_UPRIGHT = 1.1  # height by width that no upright sheet goes below, scanned with some of what lies around it


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkInput:
    """What the network takes, and the two frames it joins.

    Attributes:
        tensor: float32 (1, 3, Hn, Wn), normalised.
        network_size: (Hn, Wn), both multiples of 32.
        content_size: what the picture covers of it from the top left; the rest is padding.
        image_size: size of the picture it was made from.
    """

    tensor: torch.Tensor
    network_size: Size
    content_size: Size
    image_size: Size


def content_size(config: PreprocessConfig, image_size: Size) -> Size:
    """Return the size that a picture is resized to; but for "fit", both sides are multiples of 32.

    A free side is `ceil(target / fixed * free / 32) * 32`, evaluated in this order in floating point, as the original
    does; a target that is no multiple of 32 is rounded up first, which the original does not survive.
    """
    height, width = image_size
    if config.resize == "fit":
        scale = min((config.long_side or 0) / max(image_size), config.short_side / min(image_size))
        return Size(max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    to_multiple = _round_up if config.rounding == "up" else _round_to_nearest
    if config.resize == "exact":
        return Size(to_multiple(config.height or 0), to_multiple(config.width or 0))
    by_height = config.resize == "height" or height < width
    target = (config.height or 0) if config.resize == "height" else _short_side(config, image_size)
    # original: the free side follows the fixed one as it will be; DBNet.pytorch rounds both at the end.
    fixed = _round_up(target) if config.rounding == "up" else target
    if by_height:
        return Size(to_multiple(fixed), to_multiple(fixed / height * width))
    return Size(to_multiple(fixed / width * height), to_multiple(fixed))


def _short_side(config: PreprocessConfig, image_size: Size) -> int:
    """Return what the short side of this picture becomes, before rounding."""
    short_side = config.short_side
    if config.wide_short_side is not None and image_size.height <= _UPRIGHT * image_size.width:
        short_side = max(short_side, min(min(image_size), config.wide_short_side))
    if config.elongated_short_side is None:
        return short_side
    relative_ratio = max(image_size) / min(image_size) / _PAPER_RATIO
    as_a_sheet = int(short_side / math.sqrt(max(1.0, relative_ratio)))
    return max(as_a_sheet, min(config.elongated_short_side, short_side))


def _round_up(pixels: float) -> int:
    return max(1, math.ceil(pixels / NETWORK_MULTIPLE)) * NETWORK_MULTIPLE


def _round_to_nearest(pixels: float) -> int:
    return max(1, round(pixels / NETWORK_MULTIPLE)) * NETWORK_MULTIPLE


def rounded_targets(config: PreprocessConfig) -> dict[str, tuple[int, int]]:
    """Return the configured sides that are no multiples of 32, by field name, with what they are rounded up to."""
    used = {"short_side": ("short_side",), "height": ("height",), "exact": ("height", "width"), "fit": ()}
    sides = {name: getattr(config, name) for name in used[config.resize] if config.rounding == "up"}
    return {name: (side, _round_up(side)) for name, side in sides.items() if side % NETWORK_MULTIPLE}


def preprocess(pixels_bgr: npt.NDArray[np.uint8], config: PreprocessConfig, *, name: str = "image") -> NetworkInput:
    """Resize and normalise a picture; one so elongated that it would not fit into memory is made smaller, and said.

    Args:
        pixels_bgr: uint8 (H, W, 3), blue first, any size.
        config: resize rule and normalisation.
        name: of the picture, for messages.

    Raises:
        ImageError: the network's input would not fit into memory at the size that was asked for.
    """
    image_size = Size(*pixels_bgr.shape[:2])
    content = content_size(config, image_size)
    if _area(content) > MAX_NETWORK_PIXELS:
        wanted, content = content, _fitting_size(image_size)
        if config.resize == "exact" or max(image_size) < _ELONGATED * min(image_size):
            raise ImageError(
                f"a picture of {image_size.width}x{image_size.height} would become {wanted.width}x{wanted.height} for "
                f"the network, over its limit of {MAX_NETWORK_PIXELS // 1_000_000} megapixels",
                where=name,
                remedy="choose a smaller working size with --size or --short-side",
            )
        logger.warning(
            "%s: %dx%d pixels are so elongated that the network looks at %dx%d, not at %dx%d",
            *(name, image_size.width, image_size.height, content.width, content.height, wanted.width, wanted.height),
        )
    network = Size(_round_up(content.height), _round_up(content.width))
    resized = resize(pixels_bgr, content, config)
    return NetworkInput(
        tensor=normalise(resized, config, network), network_size=network, content_size=content, image_size=image_size
    )


def _area(size: Size) -> int:
    return _round_up(size.height) * _round_up(size.width)


def _fitting_size(image_size: Size) -> Size:
    """Return the largest size for an elongated picture that takes little memory; its ratio is kept as far as it can be.

    The short side has 32 pixels at least, and the long side is not enlarged beyond that of the picture.
    """
    short, long = sorted(image_size)
    scale = math.sqrt(_ELONGATED_PIXELS / (short * long))
    short_side = max(1, int(short * scale) // NETWORK_MULTIPLE) * NETWORK_MULTIPLE
    long_side = min(_round_up(long), _round_up(long / short * short_side), _ELONGATED_PIXELS // short_side)
    long_side = max(1, long_side // NETWORK_MULTIPLE) * NETWORK_MULTIPLE
    return Size(short_side, long_side) if image_size.height < image_size.width else Size(long_side, short_side)


def normalise(resized: npt.NDArray[Any], config: PreprocessConfig, network_size: Size) -> torch.Tensor:
    """Turn grey levels into the network's input, padded with zeros at the right and the bottom.

    Args:
        resized: uint8 or float32 (H, W, 3), blue first.
        config: order of the channels, mean and deviation.
        network_size: of the result, at least (H, W).

    Returns:
        float32 (1, 3, *network_size).
    """
    height, width = resized.shape[:2]
    normalised = np.zeros((3, *network_size), np.float32)
    for channel in range(3):
        # One rounding from float64 to float32 for mean and std, then the division in float32.
        plane = resized[:, :, channel if config.channels == "bgr" else 2 - channel].astype(np.float64)
        plane -= config.mean[channel]
        plane /= config.std[channel]
        np.divide(plane.astype(np.float32), np.float32(config.scale), out=normalised[channel, :height, :width])
    return torch.from_numpy(normalised)[None]


def resize(pixels_bgr: npt.NDArray[np.uint8], size: Size, config: PreprocessConfig) -> npt.NDArray[Any]:
    """Interpolate a picture linearly, as the configuration says of it.

    Args:
        pixels_bgr: uint8 (H, W, 3).
        size: of the result.
        config: whose `resized_as` decides what is interpolated.

    Returns:
        float32 or uint8 (*size, 3), grey levels.
    """
    height, width = pixels_bgr.shape[:2]
    pixels: npt.NDArray[Any] = pixels_bgr
    if config.resized_as == "float32":  # original: the resize comes first and works on float32 pixels.
        in_bands = height * width > _BANDED_PIXELS and NETWORK_MULTIPLE <= size.width <= width
        pixels = _narrow_in_bands(pixels_bgr, size.width) if in_bands else pixels_bgr.astype(np.float32)
    return cv2.resize(pixels, (size.width, size.height), interpolation=cv2.INTER_LINEAR)


def _narrow_in_bands(pixels: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.float32]:
    """Resize the width in float32, a band of rows at a time.

    OpenCV interpolates along rows first and then between them, so resizing the height afterwards gives bit for bit what
    one call for both gives. Not so where a row is widened much, or a band has a single row: Intel's code, which OpenCV
    uses where it can, makes exceptions of them.
    """
    height = len(pixels)
    narrow = np.empty((height, width, 3), np.float32)
    count = max(1, min(height // 2, height * pixels.shape[1] // _BAND_PIXELS))
    edges = [height * index // count for index in range(count + 1)]
    for top, bottom in pairwise(edges):
        band = pixels[top:bottom].astype(np.float32)
        cv2.resize(band, (width, bottom - top), dst=narrow[top:bottom], interpolation=cv2.INTER_LINEAR)
    return narrow
