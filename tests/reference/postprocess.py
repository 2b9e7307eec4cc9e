"""Post-processing, rule by rule, one candidate at a time: the loop that the fast one is held against.

The steps are those of the original code, its numbers included, without its faults: no int16, rejected candidates leave
no row, several rings are a rejection, NaN in the map counts as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyclipper
from shapely.geometry import Polygon

if TYPE_CHECKING:
    import numpy.typing as npt

    from dbcpu.config import PostprocessConfig
    from dbcpu.geometry import Size


def detect_text(probability_map: npt.NDArray[np.float32], image_size: Size, config: PostprocessConfig):
    """Return `([(polygon (K, 2), score)], truncated)` as `dbcpu.postprocess.detect_text` should find them."""
    probability_map = np.where(np.isnan(probability_map), np.float32(0), probability_map)
    binary = (probability_map > np.float32(config.binarize_threshold)).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    judge = judge_quad if config.shape == "quad" else judge_polygon
    found = []
    for contour in contours[: config.max_candidates]:
        verdict = judge(contour[:, 0, :], probability_map, config)
        if verdict is not None:
            polygon, score = verdict
            found.append((to_image_frame(polygon, probability_map.shape, image_size), score))
    return found, len(contours) > config.max_candidates


def judge_quad(contour: npt.NDArray[np.int32], probability_map: npt.NDArray[np.float32], config: PostprocessConfig):
    quad, short_side = rectangle_around(contour)
    if short_side < config.min_side:
        return None
    score = mean_probability(probability_map, quad)
    if score < config.score_threshold:
        return None
    rings = unclip(quad, config.effective_unclip_ratio)
    if len(rings) != 1:
        return None
    quad, short_side = rectangle_around(rings[0])
    if short_side < config.min_side + 2:
        return None
    return quad, score


def judge_polygon(contour: npt.NDArray[np.int32], probability_map: npt.NDArray[np.float32], config: PostprocessConfig):
    epsilon = config.polygon_epsilon * cv2.arcLength(contour, True)
    outline = cv2.approxPolyDP(contour, epsilon, True)[:, 0, :]
    if len(outline) < 4:
        return None
    score = mean_probability(probability_map, outline)
    if score < config.score_threshold:
        return None
    rings = unclip(outline, config.effective_unclip_ratio)
    if len(rings) != 1:
        return None
    _, short_side = rectangle_around(rings[0])
    if short_side < config.min_side + 2:
        return None
    return rings[0], score


def rectangle_around(points: npt.NDArray[np.generic]):
    """Corners of the minimum-area rectangle, clockwise from the top left, and its short side."""
    rectangle = cv2.minAreaRect(points.astype(np.int32))
    corners = sorted(cv2.boxPoints(rectangle), key=lambda corner: corner[0])
    left, right = corners[:2], corners[2:]
    top_left, bottom_left = left if left[1][1] > left[0][1] else reversed(left)
    top_right, bottom_right = right if right[1][1] > right[0][1] else reversed(right)
    return np.array([top_left, top_right, bottom_right, bottom_left]), min(rectangle[1])


def mean_probability(probability_map: npt.NDArray[np.float32], polygon: npt.NDArray[np.generic]):
    height, width = probability_map.shape
    left = int(np.clip(np.floor(polygon[:, 0].min()), 0, width - 1))
    right = int(np.clip(np.ceil(polygon[:, 0].max()), 0, width - 1))
    top = int(np.clip(np.floor(polygon[:, 1].min()), 0, height - 1))
    bottom = int(np.clip(np.ceil(polygon[:, 1].max()), 0, height - 1))
    mask = np.zeros((bottom - top + 1, right - left + 1), dtype=np.uint8)
    cv2.fillPoly(mask, [(polygon - np.array([left, top], dtype=polygon.dtype)).astype(np.int32)], 1)
    return cv2.mean(probability_map[top : bottom + 1, left : right + 1], mask)[0]


def unclip(polygon: npt.NDArray[np.generic], ratio: float):
    shape = Polygon(polygon)
    if shape.length == 0:
        return []
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(polygon.astype(np.int64).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return [np.array(ring) for ring in offset.Execute(shape.area * ratio / shape.length)]


def to_image_frame(polygon: npt.NDArray[np.generic], map_shape: tuple[int, ...], image_size: Size):
    polygon = polygon.copy()
    for axis, (map_side, image_side) in enumerate(
        [(map_shape[1], image_size.width), (map_shape[0], image_size.height)]
    ):
        polygon[:, axis] = np.clip(np.round(polygon[:, axis] / map_side * image_side), 0, image_side)
    return polygon.astype(np.float32)
