"""Text instances cut out of the picture and straightened, for recognisers and human eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_VERTICAL = 1.5  # height over width from which text is taken to run downwards
_LARGEST_SIDE = 32_766  # OpenCV's warping counts pixels in 16 bits


def crop_instance(
    pixels_bgr: npt.NDArray[np.uint8], polygon: npt.NDArray[np.float32], *, rotate_vertical: bool = False
) -> npt.NDArray[np.uint8]:
    """Cut a text instance out so that its corners become those of an upright picture.

    A quad is warped by the perspective that makes it a rectangle, as long as its longest sides; of a polygon, the
    minimum-area rectangle is taken. What tilts by less than 45 degrees is straightened, and steeper text stands.

    Args:
        pixels_bgr: uint8 (H, W, 3), the picture.
        polygon: (K, 2), (x, y) in its pixels.
        rotate_vertical: turn instances that are half as high again as wide by 90 degrees, their top to the left.

    Returns:
        uint8 (h, w, 3), one pixel a side at least.
    """
    corners = _corners(polygon)
    left, top = np.floor(corners.min(axis=0)).clip(0, [pixels_bgr.shape[1] - 1, pixels_bgr.shape[0] - 1]).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int).clip([left + 1, top + 1], None)
    window = pixels_bgr[top:bottom, left:right]
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = (max(1, round(float(sides[[edge, edge + 2]].max()))) for edge in (0, 1))
    crop: npt.NDArray[np.uint8]
    if max(*window.shape, width, height) > _LARGEST_SIDE or cv2.contourArea(corners) == 0:
        crop = window.copy()
    else:
        upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        origin = np.array([left, top], np.float32)
        warp = cv2.getPerspectiveTransform(corners - origin, upright)
        crop = np.asarray(
            cv2.warpPerspective(window, warp, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
            np.uint8,
        )
    if rotate_vertical and crop.shape[0] >= _VERTICAL * crop.shape[1]:
        crop = np.ascontiguousarray(np.rot90(crop))
    return crop


def _corners(polygon: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return four corners, (4, 2), clockwise from the top left."""
    is_quad = len(polygon) == 4 and cv2.isContourConvex(polygon) and cv2.contourArea(polygon) > 0
    corners = polygon if is_quad else cv2.boxPoints(cv2.minAreaRect(polygon))
    around = corners - corners.mean(axis=0)
    clockwise = corners[np.arctan2(around[:, 1], around[:, 0]).argsort()]
    from_top_left: npt.NDArray[np.float32] = np.roll(clockwise, -int(clockwise.sum(axis=1).argmin()), axis=0)
    return from_top_left
