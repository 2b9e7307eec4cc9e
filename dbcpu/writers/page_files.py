"""The files of one page: its result in every format asked for, the overlay, the crops, the probability map."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from dbcpu.errors import ImageError
from dbcpu.writers.crops import crop_instance
from dbcpu.writers.formats import PAGE_FORMATS, PathT
from dbcpu.writers.overlay import draw_overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from dbcpu.result import DetectionResult
    from dbcpu.writers.formats import PageFormat

    Kind = Literal["result", "overlay", "crop", "map"]

PictureFormat = Literal["png", "jpeg"]
_SUFFIXES: dict[PictureFormat, str] = {"png": "png", "jpeg": "jpg"}
_LONGEST_SIDE = {"png": 1_000_000, "jpg": 65_500}  # in pixels; of libpng unless told otherwise, and of OpenCV


@dataclass(frozen=True, kw_only=True)
class PageParts:
    """What is wanted of every page.

    Attributes:
        formats: of the result.
        overlay: form of the picture with the instances drawn over it; None for no such picture.
        crops: whether each instance is cut out.
        rotate_crops: whether crops of vertical text are turned by 90 degrees.
        probability_map: whether it is written, as a grey PNG.
    """

    formats: tuple[PageFormat, ...] = ()
    overlay: PictureFormat | None = None
    crops: bool = False
    rotate_crops: bool = False
    probability_map: bool = False


def page_files(
    parts: PageParts,
    name: Path,
    pixels_bgr: npt.NDArray[np.uint8],
    result: DetectionResult,
    probability_map: npt.NDArray[np.float32],
    picture_from: Callable[[Path], str],
) -> Iterator[tuple[Kind, Path, bytes]]:
    """Make the files of a page, one after the other.

    Args:
        parts: what is wanted.
        name: of the page, relative, without an ending.
        pixels_bgr: uint8 (H, W, 3), the picture.
        result: of the page.
        probability_map: float32 (Hn, Wn) in [0, 1].
        picture_from: gives the path of the picture as readers of that file (a relative path) have to write it, for
            formats whose tools look for it.

    Yields:
        What a file is, its relative path, its content.

    Raises:
        ImageError: a picture cannot be written in its format.
    """
    for page_format in parts.formats:
        file_name = page_format.file_name(name)
        seen = replace(result, image=picture_from(file_name)) if page_format.finds_picture else result
        yield "result", file_name, page_format.write(seen).encode()
    if parts.overlay is not None:
        drawn = draw_overlay(pixels_bgr, result)
        yield "overlay", overlay_name(name, parts.overlay), _encoded(drawn, _SUFFIXES[parts.overlay])
    if parts.crops:
        for file_name, instance in zip(crop_names(name), result.instances, strict=False):
            crop = crop_instance(pixels_bgr, instance.polygon, rotate_vertical=parts.rotate_crops)
            yield "crop", file_name, _encoded(crop, "png")
    if parts.probability_map:
        grey = (probability_map * 255).round().astype("uint8")
        yield "map", _map_name(name), _encoded(grey, "png")


def crop_names(name: PathT) -> Iterator[PathT]:
    """Yield the names of the crops of a page, without end."""
    return (name / f"{number:04d}.png" for number in itertools.count(1))


def possible_names(name: PathT) -> Iterator[PathT]:
    """Yield the names of all files, but for crops, that a page can have."""
    yield from (page_format.file_name(name) for page_format in PAGE_FORMATS.values())
    yield from (overlay_name(name, form) for form in _SUFFIXES)
    yield _map_name(name)


def overlay_name(name: PathT, form: PictureFormat) -> PathT:
    """Return the name of the overlay of a page."""
    return name.with_name(f"{name.name}.overlay.{_SUFFIXES[form]}")


def _map_name(name: PathT) -> PathT:
    return name.with_name(f"{name.name}.map.png")


def _encoded(pixels: npt.NDArray[np.uint8], suffix: str) -> bytes:
    """Return a picture file; a picture with a side that the format has no room for becomes smaller."""
    height, width = pixels.shape[:2]
    scale = _LONGEST_SIDE[suffix] / max(height, width)
    if scale < 1:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    is_encoded, content = cv2.imencode(f".{suffix}", pixels)
    if not is_encoded:
        raise ImageError(f"a picture of {width} x {height} pixels cannot be written as {suffix}")
    return content.tobytes()
