"""What the XML and HTML writers share: text that markup can carry, outlines inside the picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import cv2
import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from dbcpu.geometry import Size

Outline: TypeAlias = "list[tuple[int, int]]"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def valid_text(text: str) -> str:
    """Return the text with U+FFFD for what XML and UTF-8 have no place for: control characters, lone surrogates."""
    return _NOT_XML.sub("\ufffd", text)


def xml_document(root: ET.Element) -> str:
    """Return the element as an indented UTF-8 document."""
    ET.indent(root)
    markup = ET.tostring(root, encoding="unicode").replace("\r", "&#13;")  # or readers would make line feeds of them
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{markup}\n'


class Box(NamedTuple):
    """The pixels an outline covers; width and height are at least 1."""

    left: int
    top: int
    width: int
    height: int


def box_around(outlines: Iterable[Outline]) -> Box:
    """Return the smallest box that covers all outlines."""
    xs, ys = zip(*(point for outline in outlines for point in outline), strict=True)
    return Box(min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)


def outline_inside(polygon: npt.NDArray[np.float32], size: Size) -> Outline:
    """Return the polygon as other tools take it: pixels of the picture, an area, sides that do not cross.

    Polygons reach from 0 to the width or height; outlines, to the last pixel. Where sides cross or nothing is left
    between them, the convex hull stands for the polygon, and a box of two pixels a side for a line or a point.

    Args:
        polygon: (K, 2), (x, y) in image pixels.
        size: of the picture.
    """
    last = np.array([size.width - 1, size.height - 1])
    points = polygon.round().clip(0, last).astype(np.int32)
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    if len(points) < 3 or not shapely.Polygon(points).is_valid:
        points = cv2.convexHull(polygon.round().clip(0, last).astype(np.int32))[:, 0]
        if cv2.contourArea(points) == 0:
            points = _thickened(points, last)
    return [(x, y) for x, y in points.tolist()]


def _thickened(points: npt.NDArray[np.int32], last: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
    """Return the corners of the box around the points, two pixels a side at least where the picture has them."""
    (left, top) = np.minimum(points.min(axis=0), np.maximum(last - 1, 0))
    (right, bottom) = np.maximum(points.max(axis=0), np.minimum([left + 1, top + 1], last))
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
