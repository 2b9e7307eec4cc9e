"""What the network learns to draw: text kernels and the borders around text lines.

The kernel of a line is its outline pushed inwards. The DB paper pushes by `A (1 - r^2) / L` with r = 0.4, which
inference undoes for words of ordinary proportions; for a long line it leaves 16 % of the height, of which unclipping
by `A' r' / L'` with its ratio of 1.5 recovers 40 %, too little for an overlap of one half. Here the distance is the one
that unclipping undoes exactly, whatever the ratio and the proportions. For a square and 1.5 the two rules agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyclipper

from dbcpu.geometry import Size
from scripts.train.truth import Line

BORDER_RANGE = (0.3, 0.7)  # of the threshold map, as in the paper
MIN_HEIGHT = 4.0  # network pixels; thinner lines are left out of the loss
SUBPIXEL = 16.0  # pyclipper works on integers


class Targets(NamedTuple):
    """The maps of one crop, shape (H, W).

    Attributes:
        kernel: uint8, 1 inside text kernels, else 0.
        kernel_mask: uint8, 0 where the kernel map is left out of the loss, else 1.
        border: float32, threshold map, from 0.3 to 0.7 on the outline of a line; None where no network learns it.
        border_mask: uint8, 1 within the kernel distance of an outline and inside lines, else 0; None likewise.
    """

    kernel: npt.NDArray[np.uint8]
    kernel_mask: npt.NDArray[np.uint8]
    border: npt.NDArray[np.float32] | None = None
    border_mask: npt.NDArray[np.uint8] | None = None


def shrink_distance(area: float, perimeter: float, unclip_ratio: float) -> float:
    """Return the inward distance D that unclipping undoes: `D = A'(D) * unclip_ratio / L'(D)`.

    With `A'(D) = A - L D + 4 D^2` and `L'(D) = L - 8 D`, exact for rectangles, this is the smaller root of
    `(8 + 4 r) D^2 - (1 + r) L D + r A = 0`. Always below half the short side of a rectangle.

    Args:
        area: of the outline, square pixels.
        perimeter: of the outline, pixels, > 0.
        unclip_ratio: r of inference, > 0.
    """
    a, b, c = 8 + 4 * unclip_ratio, (1 + unclip_ratio) * perimeter, unclip_ratio * area
    # A shape rounder than a square (perimeter^2 < 16 area) may have no root; the square's distance serves it.
    return float((b - np.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a))


def line_height(polygon: npt.NDArray[np.float32]) -> float:
    """Return the short side, in pixels, of the rectangle with the polygon's area and perimeter."""
    area, half = abs(cv2.contourArea(polygon)), cv2.arcLength(polygon, True) / 2
    return float((half - np.sqrt(max(half * half - 4 * area, 0.0))) / 2)


def smooth_outline(polygon: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the polygon without wiggles below a tenth of its height, which would lengthen its perimeter."""
    if len(polygon) <= 4:
        return polygon
    smooth = cv2.approxPolyDP(polygon[:, None], 0.1 * line_height(polygon), True)[:, 0]
    return smooth.astype(np.float32) if len(smooth) >= 4 else polygon


def offset_outline(polygon: npt.NDArray[np.float32], distance: float) -> list[npt.NDArray[np.float32]]:
    """Return the rings of the polygon pushed outwards by `distance` pixels (inwards where negative)."""
    offset = pyclipper.PyclipperOffset()
    offset.AddPath((polygon * SUBPIXEL).round().astype(int).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return [np.array(ring, np.float32) / np.float32(SUBPIXEL) for ring in offset.Execute(distance * SUBPIXEL)]


def draw_targets(lines: Sequence[Line], size: Size, unclip_ratio: float, *, borders: bool = True) -> Targets:
    """Draw the maps of a crop.

    Args:
        lines: outlines in the crop's pixels; they may reach beyond it.
        size: of the crop.
        unclip_ratio: the ratio that inference will unclip with.
        borders: whether to draw the border maps, which take as long as the others.
    """
    kernel, kernel_mask = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    border, border_mask = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    for line in lines:
        polygon = smooth_outline(line.polygon)
        distance = shrink_distance(abs(cv2.contourArea(polygon)), max(cv2.arcLength(polygon, True), 1e-6), unclip_ratio)
        rings = offset_outline(polygon, -distance)
        if line.ignored or not rings or line_height(polygon) < MIN_HEIGHT:
            _fill(kernel_mask, [polygon], 0)
            continue
        _fill(kernel, rings, 1)
        if borders:
            _draw_border(border, border_mask, polygon, distance)
    if not borders:
        return Targets(kernel, kernel_mask)
    low, high = BORDER_RANGE
    return Targets(kernel, kernel_mask, low + (high - low) * border, border_mask)


def _fill(canvas: npt.NDArray[np.uint8], rings: Sequence[npt.NDArray[np.float32]], value: int) -> None:
    shift = 4  # fixed-point bits, so that a kernel of three rows does not lose one to rounding
    # OpenCV may draw along the edge of its canvas what lies beyond it: that edge is cut off.
    wider = cv2.copyMakeBorder(canvas, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    cv2.fillPoly(wider, [((ring + 1) * (1 << shift)).round().astype(np.int32) for ring in rings], value, shift=shift)
    canvas[:] = wider[1:-1, 1:-1]


def _draw_border(
    border: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8],
    polygon: npt.NDArray[np.float32],
    distance: float,
) -> None:
    """Raise `border` to 1 on the outline, falling to 0 at `distance` from it on both sides; mark the band in `mask`."""
    height, width = border.shape
    reach = int(np.ceil(distance)) + 1
    left, top = np.maximum(np.floor(polygon.min(axis=0)).astype(int) - reach, 0)
    right, bottom = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + reach + 1, (width, height))
    if left >= right or top >= bottom:
        return
    # The window is drawn with a margin: an outline just outside the crop still casts its band into it.
    window = np.full((bottom - top + 2 * reach, right - left + 2 * reach), 255, np.uint8)
    local = ((polygon - np.array([left - reach, top - reach], np.float32)) * 16).round().astype(np.int32)
    cv2.polylines(window, [local], True, 0, 1, shift=4)
    away = cv2.distanceTransform(window, cv2.DIST_L2, 5)[reach:-reach, reach:-reach]
    rows, columns = slice(top, bottom), slice(left, right)
    fall = max(distance, 1e-6)
    np.maximum(border[rows, columns], 1 - np.minimum(away, fall) / fall, out=border[rows, columns])
    for ring in offset_outline(polygon, distance):
        _fill(mask, [ring], 1)
