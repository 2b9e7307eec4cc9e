"""Unclipping: pushing the outlines of shrunk kernels outwards.

The numbers are those of Clipper's round joins, on integers. Convex quads, as nearly all quads are, get the same points
from array arithmetic on all of them in a fifth of the time; the rest goes to Clipper itself.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyclipper

from dbcpu.geometry import split_rings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Points = npt.NDArray[np.int32]
    Complex = npt.NDArray[np.complex128]

MITER_LIMIT = 2.0  # Clipper's default, of no effect on round joins
ARC_TOLERANCE = 0.25  # Clipper's default, in pixels


def unclip_distances(
    points: npt.NDArray[np.int32] | npt.NDArray[np.float32], counts: Sequence[int], ratio: float
) -> npt.NDArray[np.float64]:
    """Return how far to push shrunk text kernels outwards to recover the text instances.

    `D' = A' * ratio / L'`, section 3.4 of the DB paper (arXiv 1911.08947).

    Args:
        points: N outlines one after the other, shape (P, 2), (x, y) in network pixels, either winding, not closed.
        counts: N numbers of points, each at least 1.
        ratio: unclip ratio r' > 0.

    Returns:
        N distances in network pixels, >= 0; 0 where an outline has no area.
    """
    x, y = points.T.astype(np.float64)
    sizes = np.array(counts, np.intp)
    ends = sizes.cumsum()
    starts = ends - sizes
    following, before = np.arange(1, len(points) + 1), np.arange(-1, len(points) - 1)
    following[ends - 1], before[starts] = starts, ends - 1
    dx, dy = x[following] - x, y[following] - y
    # Terms and order are those of GEOS, by which the original measures: others differ in the last bit, which Clipper
    # may round the other way. Unlike reduceat, bincount adds one after the other.
    outline = np.arange(len(sizes)).repeat(sizes)
    areas = np.abs(np.bincount(outline, (x - x[starts].repeat(sizes)) * (y[before] - y[following]))) / 2
    perimeters = np.bincount(outline, np.sqrt(dx * dx + dy * dy))
    return areas * ratio / np.where(areas > 0, perimeters, 1)


def unclip_polygon(polygon: Points, distance: float) -> Points | None:
    """Push one outline outwards with round corners.

    Args:
        polygon: shape (K, 2), (x, y) in network pixels, either winding, not closed, may cross itself.
        distance: in network pixels, >= 0.

    Returns:
        The outline, shape (M, 2), not closed; None where nothing or more than one ring is left.
    """
    offset = pyclipper.PyclipperOffset(MITER_LIMIT, ARC_TOLERANCE)
    offset.AddPath(polygon.tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    rings = offset.Execute(distance)
    if len(rings) != 1:
        return None
    return np.fromiter(chain.from_iterable(rings[0]), np.int32, 2 * len(rings[0])).reshape(-1, 2)


def unclip_quads(quads: Points, distances: npt.NDArray[np.float64]) -> list[Points | None]:
    """Push quads outwards with round corners, as `unclip_polygon` does.

    Args:
        quads: shape (N, 4, 2), (x, y) in network pixels, not closed; fast where clockwise on the screen and convex.
        distances: N distances in network pixels, >= 0.

    Returns:
        For each quad, points (M, 2) around which OpenCV finds the same rectangle as around the outline that
        `unclip_polygon` gives, or None where that gives None.
    """
    corners = quads.astype(np.float64, order="C").view(np.complex128)[:, :, 0]  # x + iy
    edges = corners[:, [1, 2, 3, 0]] - corners
    lengths = np.sqrt(edges.real**2 + edges.imag**2)  # np.abs rounds in another way than Clipper
    leaving = -1j * edges * (1 / np.maximum(lengths, 1))  # outward normal of the edge that starts at a corner
    arriving = leaving[:, [3, 0, 1, 2]]  # of the edge that ends there
    turns = leaving * arriving.conj()  # cosine + i sine
    points, used = _round_corners(corners, arriving, leaving, np.angle(turns), distances)
    rings: list[Points | None] = list(_start_below_top(points, used))
    # Four turns to the same side make a quad convex; flatter ones than this Clipper joins with one point, not an arc.
    convex = (turns.imag * distances[:, None] >= 1).all(axis=1)
    for index in np.flatnonzero(~convex).tolist():
        rings[index] = unclip_polygon(quads[index], float(distances[index]))
    return rings


def _round_corners(
    corners: Complex,
    arriving: Complex,
    leaving: Complex,
    angles: npt.NDArray[np.float64],
    distances: npt.NDArray[np.float64],
) -> tuple[Complex, npt.NDArray[np.bool_]]:
    """Return points on arcs from one normal to the other around corners (N, 4), shape (N, S), and which are used."""
    # Steps of a full circle that keep chords within the tolerance of the arc, but none shorter than two pixels.
    reach = np.maximum(distances, 1)[:, None]
    steps = np.minimum(np.pi / np.arccos(1 - ARC_TOLERANCE / reach), reach * np.pi)
    counts = np.maximum(_round(angles * (steps / (2 * np.pi))), 1)
    most = int(counts.max(initial=1))
    # Clipper turns the normal step by step; so does this, to round the same way.
    turn = np.exp(2j * np.pi / steps)
    normals = np.empty((*corners.shape, most + 1), np.complex128)
    normals[:, :, 0] = arriving
    for step in range(1, most):
        normals[:, :, step] = normals[:, :, step - 1] * turn
    normals[:, :, most] = leaving
    points = corners[:, :, None] + normals * distances[:, None, None]
    used = np.arange(most + 1) < counts[:, :, None]
    used[:, :, most] = True
    rows = len(corners), 4 * (most + 1)
    return points.reshape(rows), used.reshape(rows)


def _start_below_top(points: Complex, used: npt.NDArray[np.bool_]) -> list[Points]:
    """Return the used points of each row of (N, S), rounded, from the one after the topmost, rightmost point on.

    So does Clipper, and where several rectangles have the least area, the first point decides which one OpenCV returns.
    """
    x, y = _round(points.real), _round(points.imag)
    height = np.where(used, x - y * float(1 << 26), -np.inf)
    size = points.shape[1]
    tops = size - 1 - height[:, ::-1].argmax(axis=1)
    order = (np.arange(1, size + 1) + tops[:, None]) % size
    used = np.take_along_axis(used, order, axis=1)
    rings = np.stack([np.take_along_axis(axis, order, axis=1)[used] for axis in (x, y)], axis=1)
    return split_rings(rings, used.sum(axis=1).tolist())


def _round(values: npt.NDArray[np.float64]) -> Points:
    """Round halves away from zero."""
    return (values + np.copysign(0.5, values)).astype(np.int32)
