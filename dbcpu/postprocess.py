"""From a probability map to text instances: contour, candidate, score, unclip.

The rules and numbers are those of the original code. What is left per candidate is OpenCV's own work; arithmetic on its
few points is done for all candidates at once.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from dbcpu.geometry import Size, split_rings
from dbcpu.result import TextInstance
from dbcpu.unclip import unclip_distances, unclip_polygon, unclip_quads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dbcpu.config import PostprocessConfig

    ProbabilityMap = npt.NDArray[np.float32]
    Points = npt.NDArray[np.int32]

MIN_CONTOUR_POINTS = 3  # fewer have no area
MIN_OUTLINE_POINTS = 4  # original: triangles are no text
UNCLIPPED_MARGIN = 2  # original: the short side must reach `min_side` before unclipping, and this much more after it
# The norm of more pixels would be off by more than 1e-7 of their mean.
LARGEST_NORM = 1 << 16


class _Scratch(threading.local):
    """Memory that a thread keeps: the page faults of a fresh mask cost as much as finding the contours in it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        size = math.prod(shape)
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(shape)


_scratch = _Scratch()


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What a probability map holds.

    Attributes:
        instances: in the order of the contours, which come bottom-up.
        truncated: whether `max_candidates` cut the list of candidates.
    """

    instances: tuple[TextInstance, ...]
    truncated: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Outlines:
    """Accepted outlines in the network frame, their points one after the other (P, 2), counted and scored for each."""

    points: npt.NDArray[np.int32] | npt.NDArray[np.float32]
    counts: list[int]
    scores: list[float]


def detect_text(
    probability_map: ProbabilityMap, image_size: Size, config: PostprocessConfig, *, content_size: Size | None = None
) -> Detections:
    """Find the text instances of a probability map.

    Args:
        probability_map: float32 (Hn, Wn), in [0, 1], network frame; NaN counts as 0.
        image_size: size of the picture that the network's input was made from.
        config: shape, thresholds and limits.
        content_size: what the picture covers of the map from the top left, where the rest is padding; None is all.

    Returns:
        Instances in the image frame, their coordinates whole pixels from 0 to the width or height inclusive.

    Raises:
        ValueError: the map is not two-dimensional, or empty, or not float32.
    """
    if probability_map.ndim != 2 or probability_map.size == 0 or probability_map.dtype != np.float32:
        found = f"{probability_map.dtype} {probability_map.shape}"
        raise ValueError(f"probability_map must be float32 (height, width), not {found}")
    is_kernel = _scratch.mask(probability_map.shape)
    np.greater(probability_map, np.float32(config.binarize_threshold), out=is_kernel.view(np.bool_))
    contours, _ = cv2.findContours(is_kernel, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    candidates = cast("Sequence[Points]", contours[: config.max_candidates])
    if config.shape == "polygon":
        outlines = _find_polygons(probability_map, candidates, config)
    elif config.quad_of == "polygon":
        outlines = _quads_around(_find_polygons(probability_map, candidates, config))
    else:
        outlines = _find_quads(probability_map, candidates, config)
    points = _to_image_frame(outlines.points, content_size or Size(*probability_map.shape), image_size)
    polygons = split_rings(points, outlines.counts)
    instances = tuple(TextInstance(polygon=p, score=s) for p, s in zip(polygons, outlines.scores, strict=True))
    return Detections(instances=instances, truncated=len(contours) > len(candidates))


def _find_quads(probability_map: ProbabilityMap, candidates: Sequence[Points], config: PostprocessConfig) -> _Outlines:
    quads, wide_enough = _rectangles_around(candidates, config.min_side)
    corners = quads.astype(np.int32)  # original: truncated wherever integers are asked for
    if config.score_over == "contour":
        scores = np.array([_mean_under_points(probability_map, candidates[index]) for index in wide_enough])
    else:
        height, width = probability_map.shape
        bounds = np.concatenate([np.floor(quads.min(axis=1)), np.ceil(quads.max(axis=1))], axis=1)
        bounds = bounds.clip(0, [width - 1, height - 1, width - 1, height - 1]).astype(np.intp)
        scored = zip(corners, bounds.tolist(), strict=True)
        scores = np.array([_mean_probability(probability_map, outline, box) for outline, box in scored])
    accepted = np.flatnonzero(scores >= config.score_threshold)
    counts = [4] * len(accepted)
    distances = unclip_distances(quads[accepted].reshape(-1, 2), counts, config.effective_unclip_ratio)
    rings = unclip_quads(corners[accepted], distances)
    quads, kept = _rectangles_around(rings, config.min_side + UNCLIPPED_MARGIN)
    scores = scores[accepted[kept]]
    return _Outlines(points=quads.reshape(-1, 2), counts=[4] * len(quads), scores=scores.tolist())


def _find_polygons(
    probability_map: ProbabilityMap, candidates: Sequence[Points], config: PostprocessConfig
) -> _Outlines:
    outlines, scores = [], []
    for contour in candidates:
        if len(contour) < MIN_OUTLINE_POINTS:
            continue
        epsilon = config.polygon_epsilon * cv2.arcLength(contour, True)
        outline = cast("Points", cv2.approxPolyDP(contour, epsilon, True)[:, 0])
        if len(outline) < MIN_OUTLINE_POINTS:
            continue
        score = _mean_under_points(probability_map, contour if config.score_over == "contour" else outline)
        if score >= config.score_threshold:
            outlines.append(outline)
            scores.append(score)
    points, counts = _join_rings(outlines)
    distances = unclip_distances(points, counts, config.effective_unclip_ratio)
    rings, kept = [], []
    for outline, distance, score in zip(outlines, distances.tolist(), scores, strict=True):
        ring = unclip_polygon(outline, distance)
        if ring is not None and min(cv2.minAreaRect(ring)[1]) >= config.min_side + UNCLIPPED_MARGIN:
            rings.append(ring)
            kept.append(score)
    points, counts = _join_rings(rings)
    return _Outlines(points=points, counts=counts, scores=kept)


def _quads_around(outlines: _Outlines) -> _Outlines:
    """Replace each polygon by its minimum-area rectangle."""
    polygons = split_rings(cast("Points", outlines.points), outlines.counts)
    quads, kept = _rectangles_around(polygons, 0)
    scores = [outlines.scores[index] for index in kept]
    return _Outlines(points=quads.reshape(-1, 2), counts=[4] * len(quads), scores=scores)


def _join_rings(rings: Sequence[Points]) -> tuple[Points, list[int]]:
    """Return the points one after the other, (P, 2), and the number of them in each ring."""
    return np.concatenate([np.empty((0, 2), np.int32), *rings]), [len(ring) for ring in rings]


def _rectangles_around(
    point_sets: Sequence[Points | None], min_side: float
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Return the minimum-area rectangles whose short side reaches `min_side`, and which point sets they are of.

    Returns:
        Quads of shape (M, 4, 2), clockwise from the top left, and M indices. None and points without area have none.
    """
    kept = [i for i, points in enumerate(point_sets) if points is not None and len(points) >= MIN_CONTOUR_POINTS]
    rectangles = [cv2.minAreaRect(cast("Points", point_sets[index])) for index in kept]
    wide_enough = [min(size) >= min_side for _, size, _ in rectangles]
    kept = list(compress(kept, wide_enough))
    corners = np.empty((len(kept), 4, 2), np.float32)
    for rectangle, row in zip(compress(rectangles, wide_enough), corners, strict=True):
        cv2.boxPoints(rectangle, row)
    return _clockwise_from_top_left(corners), kept


def _clockwise_from_top_left(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Order corners (N, 4, 2): of the two leftmost the upper is first, the lower last, and likewise on the right."""
    rows = np.arange(len(corners))[:, None]
    by_x = corners[rows, corners[:, :, 0].argsort(axis=1, kind="stable")]
    left, right = (by_x[:, [1, 3], 1] <= by_x[:, [0, 2], 1]).astype(np.intp).T  # 1 where the second of a pair is upper
    clockwise: npt.NDArray[np.float32] = by_x[rows, np.stack([left, 2 + right, 3 - right, 1 - left], axis=1)]
    return clockwise


def _mean_probability(probability_map: ProbabilityMap, outline: Points, bounds: Sequence[int]) -> float:
    """Return the mean of the map under an outline (K, 2), inside `bounds`: left, top, right and bottom pixel."""
    left, top, right, bottom = bounds
    under = _scratch.mask((bottom - top + 1, right - left + 1))
    under.fill(0)
    cv2.fillPoly(under, [outline], 1, cv2.LINE_8, 0, (-left, -top))
    window = probability_map[top : bottom + 1, left : right + 1]
    score = _masked_mean(window, under)
    if math.isnan(score):  # asked here, since asking the whole map first would cost more
        score = _masked_mean(np.where(np.isnan(window), np.float32(0), window), under)
    return score


def _masked_mean(window: ProbabilityMap, under: npt.NDArray[np.uint8]) -> float:
    if window.size > LARGEST_NORM:
        return cv2.mean(window, under)[0]
    # Of numbers >= 0 this norm is the sum, in a quarter of the time of `mean`, but in float32.
    return cv2.norm(window, cv2.NORM_L1, under) / max(1, cv2.countNonZero(under))


def _mean_under_points(probability_map: ProbabilityMap, outline: Points) -> float:
    """Return the mean of the map under an outline of whole points inside it, (K, 2) or (K, 1, 2)."""
    left, top, width, height = cv2.boundingRect(outline)
    return _mean_probability(probability_map, outline, (left, top, left + width - 1, top + height - 1))


def _to_image_frame(
    points: npt.NDArray[np.int32] | npt.NDArray[np.float32], map_size: Size, image_size: Size
) -> npt.NDArray[np.float32]:
    """Scale points (P, 2) from the network to the image frame, to whole pixels inside it."""
    # original: corners of rectangles stay float32, points of outlines are integers and divide to float64
    kind = np.result_type(points, np.float32)
    image_corner = np.array([image_size.width, image_size.height], kind)
    scaled = points / np.array([map_size.width, map_size.height], kind) * image_corner
    inside: npt.NDArray[np.float32] = scaled.round().clip(0, image_corner).astype(np.float32, copy=False)
    return inside
