"""Training crops: a piece of a page at about the scale inference sees it in, turned, most a little; its recolouring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dbcpu.geometry import Size
from scripts.train.snapshots import coarsen
from scripts.train.targets import Targets, draw_targets
from scripts.train.truth import Line
from scripts.train.wear import clouds


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How crops are cut.

    Attributes:
        side: of the square crop, in network pixels, a multiple of 32.
        short_side: what inference reduces the page's short side to.
        scales: lowest and highest factor on top of that, drawn log-uniformly.
        degrees: largest rotation of most crops.
        steep_share: of the crops that are turned by up to 90 degrees, either way.
        unclip_ratio: see `draw_targets`.
        borders: likewise.
    """

    side: int = 320
    short_side: int = 928
    scales: tuple[float, float] = (0.65, 1.5)
    degrees: float = 4.0
    steep_share: float = 0.15
    unclip_ratio: float = 1.0
    borders: bool = True


def cut_crop(
    image: npt.NDArray[np.uint8],
    lines: Sequence[Line],
    settings: CropSettings,
    rng: np.random.Generator,
    mistakes: Sequence[Line] = (),
) -> tuple[npt.NDArray[np.uint8], Targets]:
    """Return a random crop, uint8 (side, side, 3) BGR, and its targets.

    Four of five crops are centred near a line, the others anywhere; nine of ten are then moved onto the page, as far as
    it reaches. Where there are `mistakes`, six of ten of the former are centred near one of them instead. Beyond the
    page's edge the edge is repeated or the crop is grey. Bilinear without smoothing, as when inference resizes.
    """
    height, width = image.shape[:2]
    low, high = np.log(settings.scales)
    scale = settings.short_side / min(height, width) * np.exp(rng.uniform(low, high))
    degrees = np.clip(rng.normal(0, settings.degrees / 2), -settings.degrees, settings.degrees)
    if rng.random() < settings.steep_share:
        degrees = rng.uniform(-90, 90)
    angle = np.radians(degrees)
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    aims = mistakes if mistakes and rng.random() < 0.6 else lines
    if aims and rng.random() < 0.8:
        polygon = aims[int(rng.integers(len(aims)))].polygon
        mix = rng.random(len(polygon))
        centre = (polygon * mix[:, None]).sum(axis=0) / mix.sum()
        centre = centre + rng.uniform(-0.4, 0.4, 2) * settings.side / scale
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wide = rng.uniform(0.85, 1.18) if rng.random() < 0.7 else np.exp(rng.uniform(-0.5, 0.5))
    turn[0] *= wide  # condensed and expanded type
    shift = settings.side / 2 - turn @ centre
    if rng.random() < 0.9:
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ turn.T + shift
        shift = shift + _onto(corners, settings.side)
    matrix = np.hstack([turn, shift[:, None]])
    edge = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    crop = cv2.warpAffine(
        image, matrix, (settings.side, settings.side), flags=cv2.INTER_LINEAR, borderMode=edge, borderValue=(90,) * 3
    )
    moved = [Line((line.polygon @ turn.T + shift).astype(np.float32), line.text) for line in lines]
    inside = [line for line in moved if _touches(line.polygon, settings.side)]
    size = Size(settings.side, settings.side)
    targets = draw_targets(inside, size, settings.unclip_ratio, borders=settings.borders)
    return crop.astype(np.uint8, copy=False), targets


def _onto(corners: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Return the least move after which a page with these corners, shape (4, 2), covers a crop or lies inside it."""
    to_the_start, to_the_end = -corners.min(axis=0), side - corners.max(axis=0)
    least, most = np.minimum(to_the_start, to_the_end), np.maximum(to_the_start, to_the_end)
    move: npt.NDArray[np.float64] = np.maximum(least, 0) + np.minimum(most, 0)
    return move


def _touches(polygon: npt.NDArray[np.float32], side: int) -> bool:
    margin = 16  # a border band reaches this far at most where it matters
    return bool((polygon.max(axis=0) > -margin).all() and (polygon.min(axis=0) < side + margin).all())


def retake(crop: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the crop, one of two times as a lesser camera would have taken it.

    Drawn letters are even and crisp. Those of photographs are blotchy, coarse, sharpened, smeared, with colours that
    run and the marks of compression: any of those here.
    """
    if rng.random() < 0.5:
        return crop
    height, width = crop.shape[:2]
    picture = crop.astype(np.float32)
    if rng.random() < 0.5:  # uneven paint and light
        for cell in (3, 8, 24, 80):
            tint = clouds(rng, height, width, cell)[..., None] * np.exp(rng.normal(0, 0.4, 3))
            picture *= 1 + (rng.uniform(0, 0.12) * tint).astype(np.float32)
    if rng.random() < 0.4:
        picture = coarsen(picture, rng.uniform(1.1, 1.7), (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(2)])
    if rng.random() < 0.4:
        blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.7, 3)).astype(np.float32)
        picture = picture + (picture - blurred) * np.float32(rng.uniform(0.3, 2))
    taken = np.clip(picture, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        taken = cv2.medianBlur(taken, 3).astype(np.uint8)
    if rng.random() < 0.3:
        parts = cv2.cvtColor(taken, cv2.COLOR_BGR2YCrCb)
        parts[..., 1:] = cv2.GaussianBlur(parts[..., 1:], (0, 0), rng.uniform(1, 5))
        taken = cv2.cvtColor(parts, cv2.COLOR_YCrCb2BGR).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 75))]
        taken = np.asarray(cv2.imdecode(cv2.imencode(".jpg", taken, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return taken


def recolour(crop: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the crop with other contrast, brightness, gamma and tint; at times grey, inverted, blurred or noisy."""
    levels = np.arange(256, dtype=np.float32) / 255
    tables = np.empty((1, 256, 3), np.uint8)
    gamma, contrast, brightness = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.08)
    inverted = rng.random() < 0.04
    for channel in range(3):
        tint = rng.normal(0, 0.03)
        table = (levels ** (gamma * np.exp(rng.normal(0, 0.05))) - 0.5) * contrast + 0.5 + brightness + tint
        tables[0, :, channel] = (np.clip(1 - table if inverted else table, 0, 1) * 255).round()
    if rng.random() < 0.2:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).astype(np.uint8)
    crop = cv2.LUT(crop, tables).astype(np.uint8, copy=False)
    if rng.random() < 0.2:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 1.1)).astype(np.uint8)
    if rng.random() < 0.15:
        noise = rng.standard_normal(crop.shape[:2], np.float32) * np.float32(rng.uniform(3, 14))
        crop = cv2.add(crop, cv2.merge([noise] * 3), dtype=cv2.CV_8U).astype(np.uint8, copy=False)
    return crop
