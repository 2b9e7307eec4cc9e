"""The picture with the text instances drawn over it, for human eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from dbcpu.result import DetectionResult, TextInstance

# Blue, green, red; dark enough for paper, and far enough apart to tell neighbouring lines from each other.
_COLOURS = ((196, 64, 16), (32, 32, 208), (24, 128, 0), (176, 0, 160), (0, 96, 224))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22  # pixels of a digit at scale 1
_FILL = 0.12  # opacity of the instances' areas


def draw_overlay(pixels_bgr: npt.NDArray[np.uint8], result: DetectionResult) -> npt.NDArray[np.uint8]:
    """Draw the outlines, lightly filled, with their scores.

    Args:
        pixels_bgr: uint8 (H, W, 3), the upright picture the result is in the frame of; not changed.
        result: of this picture.

    Returns:
        uint8 (H, W, 3), blue first.
    """
    thickness = max(1, round(min(pixels_bgr.shape[:2]) / 500))
    drawn: npt.NDArray[np.uint8] = pixels_bgr.copy()
    for index, instance in enumerate(result.instances):
        cv2.fillPoly(drawn, [_points(instance)], _COLOURS[index % len(_COLOURS)])
    cv2.addWeighted(drawn, _FILL, pixels_bgr, 1 - _FILL, 0, dst=drawn)  # in place: one copy of a huge page is enough
    for index, instance in enumerate(result.instances):
        cv2.polylines(drawn, [_points(instance)], True, _COLOURS[index % len(_COLOURS)], thickness, cv2.LINE_AA)
    for index, instance in enumerate(result.instances):
        _draw_score(drawn, instance, _COLOURS[index % len(_COLOURS)])
    return drawn


def _points(instance: TextInstance) -> npt.NDArray[np.int32]:
    return np.round(instance.polygon).astype(np.int32)


def _draw_score(picture: npt.NDArray[np.uint8], instance: TextInstance, colour: tuple[int, int, int]) -> None:
    """Write the score on a plate of the outline's colour that sits on the top edge of the instance."""
    height, width = picture.shape[:2]
    short_side = min(cv2.minAreaRect(instance.polygon)[1])
    digit_height = float(np.clip(short_side * 0.3, 7, max(9, min(height, width) / 45)))
    scale = digit_height / _FONT_HEIGHT
    thickness = 1 if digit_height < 16 else 2
    label = f"{instance.score:.2f}"
    (text_width, text_height), _ = cv2.getTextSize(label, _FONT, scale, thickness)
    left, top = (round(float(value)) for value in instance.polygon.min(axis=0))
    left = min(max(left, 0), max(0, width - text_width - 2))
    bottom = max(top, text_height + 3)  # above the instance, or inside the picture's edge
    cv2.rectangle(picture, (left, bottom - text_height - 3), (left + text_width + 2, bottom), colour, cv2.FILLED)
    cv2.putText(picture, label, (left + 1, bottom - 2), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
