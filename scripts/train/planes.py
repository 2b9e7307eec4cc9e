"""Planes in a picture: where a camera sees the corners of a sheet or a board."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.geometry import Size
from scripts.train.truth import rectangle

CAMERA = 1.5  # distance of it, in lengths of the plane
TURNED = np.radians((24.0, 14.0))  # standard deviation of how far planes are turned away, sideways and up or down


def place_plane(
    rng: np.random.Generator, plane: Size, frame: Size, upright: bool, scale: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return the homography (3, 3) from a plane's pixels to the frame's, at `scale` or to fit nine tenths of the frame.

    One that is not upright is turned away from the camera and to a side, three of ten steeply; one slants as italics.
    """
    fit = min(scale, 0.9 * frame.width / plane.width, 0.9 * frame.height / plane.height)
    corners = rectangle(0, 0, plane.width, plane.height)
    bent = corners * fit + rng.normal(0, 0.005 if upright else 0.03, (4, 2)) * min(plane) * fit
    if not upright:
        if rng.random() < 0.1:
            bent[:, 0] -= bent[:, 1] * rng.normal(0, 0.25)
        yaw, pitch = np.clip(rng.normal(0, TURNED), -1, 1).tolist()
        bent = turn_away(bent - bent.mean(axis=0), yaw, pitch)
    angle = np.radians(rng.uniform(-80, 80) if rng.random() < 0.3 else rng.normal(0, 10))
    if upright and rng.random() < 0.85:
        angle = np.radians(rng.normal(0, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([rng.uniform(0.15, 0.85) * frame.width, rng.uniform(0.15, 0.85) * frame.height])
    target = (bent - bent.mean(axis=0)) @ turn.T + centre
    return np.asarray(cv2.getPerspectiveTransform(corners, target.astype(np.float32)), np.float64)


def turn_away(corners: npt.NDArray[np.float64], yaw: float, pitch: float) -> npt.NDArray[np.float64]:
    """Return where a camera sees the corners (4, 2) of a plane about the origin, turned by two angles in radians."""
    x, y = corners[:, 0], corners[:, 1] * np.cos(pitch)
    z = corners[:, 1] * np.sin(pitch)
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    nearness = 1 + z / (CAMERA * np.ptp(corners, axis=0).max())
    return np.asarray(np.stack([x, y], axis=1) / nearness[:, None], np.float64)


def see_outline(plane: Size, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return where a homography (3, 3) takes the corners of a plane, float32 (4, 2)."""
    corners = cv2.perspectiveTransform(rectangle(0, 0, plane.width, plane.height)[None], matrix)[0]
    return np.asarray(corners, np.float32)
