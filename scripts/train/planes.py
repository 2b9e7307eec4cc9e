"""Planes in a picture: where a camera sees the corners of a sheet or a board, and where one finds a place."""

from __future__ import annotations

from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.geometry import Size
from scripts.train.truth import rectangle

Pose: TypeAlias = Literal["any", "wall", "upright"]  # turned away and to a side; as on walls; facing the camera
CAMERA = 1.5  # distance of it, in lengths of the plane
PLACES = 4  # tried for each plane
SMALLER = 0.75  # factor of its size from one try to the next
TURNED = np.radians((24.0, 14.0))  # standard deviation of how far planes are turned away, sideways and up or down


def find_place(
    rng: np.random.Generator, taken: npt.NDArray[np.uint8], plane: Size, pose: Pose
) -> npt.NDArray[np.float64] | None:
    """Return a homography (3, 3) to where nothing is `taken` yet, (H, W), and mark it; None where tries fail.

    Most often all of the plane is in the picture, the smaller the more often it found no place.
    """
    for tried in range(PLACES):
        matrix = place_plane(rng, plane, Size(*taken.shape), pose, SMALLER**tried)
        outline = see_outline(plane, matrix)
        place = np.zeros_like(taken)
        cv2.fillConvexPoly(place, outline.astype(np.int32), 1)
        inside = (outline >= 0).all() and (outline < taken.shape[::-1]).all()
        if not (taken & place).any() and (inside or rng.random() < 0.3):
            taken |= place
            return matrix
    return None


def place_plane(
    rng: np.random.Generator, plane: Size, frame: Size, pose: Pose, scale: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return the homography (3, 3) from a plane's pixels to the frame's, at `scale` or to fit nine tenths of the frame.

    In the pose "any" it is turned away from the camera and to a side, three of ten steeply; one slants as italics. On a
    wall it is turned away, and hardly to a side. Of the upright ones, one of seven is turned to a side.
    """
    fit = min(scale, 0.9 * frame.width / plane.width, 0.9 * frame.height / plane.height)
    corners = rectangle(0, 0, plane.width, plane.height)
    bent = corners * fit + rng.normal(0, 0.03 if pose == "any" else 0.005, (4, 2)) * min(plane) * fit
    if pose == "any" and rng.random() < 0.1:
        bent[:, 0] -= bent[:, 1] * rng.normal(0, 0.25)
    if pose != "upright":
        yaw, pitch = np.clip(rng.normal(0, TURNED), -1, 1).tolist()
        bent = turn_away(bent - bent.mean(axis=0), yaw, pitch)
    angle = np.radians(rng.uniform(-80, 80) if rng.random() < 0.3 else rng.normal(0, 10))
    if pose == "wall" or (pose == "upright" and rng.random() < 0.85):
        angle = np.radians(rng.normal(0, 1 if pose == "upright" else 3))
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
