"""Pixels of any kind as 8-bit BGR on white paper, the right way up."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]

WHITE = 255
WHITE_IS_ZERO = 0  # TIFF PhotometricInterpretation
PHOTOMETRIC_INTERPRETATION = 262
_BAND_PIXELS = 1 << 17  # converted at a time: stays in the cache, and keeps the extra memory off the size of the page
_UNSIGNED = 1  # TIFF SampleFormat
_SAMPLE_FORMAT = 339

# EXIF orientation → transpose first, then what cv2.flip does: 1 left-right, 0 top-bottom, -1 both.
_TURNS: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror stored pixels as their EXIF orientation says.

    Args:
        pixels: shape (H, W, 3), as stored.
        orientation: EXIF tag 274; anything but 2-8 leaves the pixels as they are.

    Returns:
        The upright picture, C-contiguous; (W, H, 3) for orientations 5-8.
    """
    transpose, flip = _TURNS.get(orientation, (False, None))
    upright: Any = cv2.transpose(pixels) if transpose else pixels
    if flip is not None:
        upright = cv2.flip(upright, flip, upright if transpose else None)  # in place where it is a copy already
    return np.ascontiguousarray(upright)


def turn_back(pixels: Pixels, orientation: int) -> Pixels:
    """Undo `turn_upright`: the quarter turns are each other's inverse, the others their own."""
    return turn_upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def bgr_from_picture(picture: Image.Image) -> Pixels:
    """Convert a picture of any mode.

    Transparency is composed on white; an alpha that is 0 everywhere tells nothing and is ignored. CMYK goes through its
    embedded profile to sRGB, or where it has none through the plain formula; Lab goes to sRGB. RGB and grey values stay
    as they are, whatever profile is embedded: the networks were trained on values as stored. Integers beyond 8 bits and
    floats are scaled as in `bgr_from_samples`.

    Args:
        picture: loaded, or still to load.

    Returns:
        uint8, shape (H, W, 3), BGR, C-contiguous, not turned.
    """
    picture.load()
    if picture.mode.startswith(("I", "F")):
        tags = getattr(picture, "tag_v2", {})
        samples = np.asarray(picture)
        if picture.mode == "I" and tags and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,):
            samples = samples.view(np.uint32)  # as the TIFF says; of 32 bits Pillow has signed integers only
        return bgr_from_samples(
            samples,
            transparent=picture.info.get("transparency"),
            white_is_zero=tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO,
        )
    convert = _converter(picture)
    width, height = picture.size
    pixels = np.empty((height, width, 3), np.uint8)
    for rows in _bands(height, width):
        band = np.asarray(convert(picture.crop((0, rows.start, width, rows.stop))))
        cv2.cvtColor(band, cv2.COLOR_GRAY2BGR if band.ndim == 2 else cv2.COLOR_RGB2BGR, dst=pixels[rows])
    return pixels


def bgr_from_samples(
    samples: npt.NDArray[Any],
    *,
    transparent: int | None = None,
    white_is_zero: bool = False,
    premultiplied: bool = False,
) -> Pixels:
    """Scale samples of more than 8 bits to 8 by their own range, the smallest to 0 and the largest to 255.

    So a 12-bit scan in 16 bits comes out readable. The colours share one range, so that hues stay. 8-bit samples stay
    as they are. The range is that of the type, 0 to its maximum or 0 to 1, where there is one value only, or where some
    pixels are half transparent: that is a drawing, meant for white paper, and none of its inks may become white.
    Transparency is composed on white, but for an alpha that is 0 everywhere, which is ignored; and NaN and infinities,
    which carry no ink, are white.

    Args:
        samples: shape (H, W) grey, (H, W, 3) BGR or (H, W, 4) BGR with alpha; any integer or float type.
        transparent: the one value of a grey picture that is transparent.
        white_is_zero: whether small values are light.
        premultiplied: whether the colours were multiplied with alpha.

    Returns:
        uint8, shape (H, W, 3), BGR, C-contiguous.
    """
    full = float(np.iinfo(samples.dtype).max) if np.issubdtype(samples.dtype, np.integer) else 1.0
    colours, opacity = samples, None
    if samples.ndim == 3 and samples.shape[2] == 4:
        colours = samples[..., :3]
        if premultiplied or samples[..., 3].any():
            opacity = (samples[..., 3] / np.float32(full)).clip(0, 1)
    elif transparent is not None:
        opacity = (samples != transparent).astype(np.float32)
    drawing = opacity is not None and bool(((opacity > 0) & (opacity < 1)).any())
    low, high = (0.0, full) if drawing or samples.dtype == np.uint8 else _visible_range(colours, opacity)
    if low >= high:
        low, high = 0.0, full
    # Where a float64 cannot hold the span or its reciprocal, everything moves by a power of two, which is exact.
    exponent = 0 if 1e-290 < high - low < 1e290 else -math.frexp(max(abs(low), abs(high)))[1]
    low, high = math.ldexp(low, exponent), math.ldexp(high, exponent)
    pixels = np.empty((*samples.shape[:2], 3), np.uint8)
    for rows in _bands(*samples.shape[:2]):
        values = colours[rows].reshape(-1, samples.shape[1], colours.shape[2] if colours.ndim == 3 else 1)
        band = values.astype(np.float64)
        if exponent:
            band = np.ldexp(band, exponent)
        band = (band - low) * (WHITE / (high - low))
        if white_is_zero:
            band = WHITE - band
        if opacity is not None:
            share = opacity[rows][..., None]
            band = (band if premultiplied else band * share) + WHITE * (1 - share)
        band[~np.isfinite(values)] = WHITE
        pixels[rows] = np.rint(band.clip(0, WHITE))
    return pixels


def _visible_range(values: npt.NDArray[Any], opacity: npt.NDArray[np.float32] | None) -> tuple[float, float]:
    """Return the smallest and the largest finite value that is not transparent; (0, 0) if there is none."""
    lows, highs = [], []
    for rows in _bands(*values.shape[:2]):
        band = values[rows] if opacity is None else values[rows][opacity[rows] > 0]
        finite = band[np.isfinite(band)]
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    return (min(lows), max(highs)) if lows else (0.0, 0.0)


def _bands(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _converter(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return what makes RGB or grey of a band of this picture."""
    if picture.has_transparency_data and not _is_hidden(picture):
        return _on_white
    if picture.mode == "CMYK":
        return _cmyk_to_rgb(picture.info.get("icc_profile"))
    if picture.mode == "LAB":
        return _transform(ImageCms.createProfile("LAB"), "LAB")
    mode = "L" if picture.mode in ("1", "L") else "RGB"
    return lambda band: band if band.mode == mode else band.convert(mode)


def _is_hidden(picture: Image.Image) -> bool:
    """Tell whether the alpha hides all: then it is the unused byte of 32, as in many TGAs and BMPs."""
    if picture.format != "TIFF" and getattr(picture, "is_animated", False):  # where a frame may well be empty
        return False
    return picture.mode in ("RGBA", "LA", "PA") and picture.getchannel("A").getextrema() == (0, 0)


def _on_white(band: Image.Image) -> Image.Image:
    paper = Image.new("RGB", band.size, "white")
    drawing = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
    paper.paste(drawing, mask=drawing)
    return paper


def _cmyk_to_rgb(profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    if profile:
        try:
            return _transform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), "CMYK")
        except (ImageCms.PyCMSError, OSError):  # not a profile, or one of another colour space
            pass
    return lambda band: band.convert("RGB")


def _transform(profile: Any, mode: str) -> Callable[[Image.Image], Image.Image]:
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")

    def apply(band: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(band, transform)
        return band if converted is None else converted  # None only where a band is changed in place

    return apply
