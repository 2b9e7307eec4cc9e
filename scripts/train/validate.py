"""How good the network is on pages it never trained on: whole pages at inference's size, matched at IoU 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from shapely.geometry import Polygon
from torch import nn

from dbcpu.config import PreprocessConfig
from dbcpu.preprocess import preprocess
from scripts.train.targets import offset_outline
from scripts.train.truth import Line, PageFile, read_page

BINARIZE_THRESHOLD, SCORE_THRESHOLD, MIN_SIDE = 0.3, 0.5, 3.0


class Score(NamedTuple):
    """Counts over pages: lines matched, lines to find, regions found."""

    matched: int = 0
    lines: int = 0
    found: int = 0

    @property
    def f_measure(self) -> float:
        """2PR / (P + R), 0 without lines and regions."""
        return 2 * self.matched / max(self.lines + self.found, 1)


def find_quads(probability: npt.NDArray[np.float32], unclip_ratio: float) -> list[npt.NDArray[np.float32]]:
    """Return the rotated rectangles (4, 2) of a probability map (H, W), by the product's default rules in brief."""
    contours, _ = cv2.findContours(
        (probability > BINARIZE_THRESHOLD).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE
    )
    quads = []
    for contour in contours:
        rectangle = cv2.minAreaRect(contour)
        if min(rectangle[1]) < MIN_SIDE - 1:
            continue
        x, y, width, height = cv2.boundingRect(contour)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [contour - np.int32([x, y])], 1)
        if cv2.mean(probability[y : y + height, x : x + width], mask)[0] < SCORE_THRESHOLD:
            continue
        box = cv2.boxPoints(rectangle).astype(np.float32)
        perimeter = 2 * sum(rectangle[1])
        rings = offset_outline(box, rectangle[1][0] * rectangle[1][1] * unclip_ratio / max(perimeter, 1e-6))
        if len(rings) == 1:
            quads.append(cv2.boxPoints(cv2.minAreaRect(rings[0])).astype(np.float32))
    return quads


def match(lines: Sequence[Line], quads: Sequence[npt.NDArray[np.float32]]) -> Score:
    """Count one-to-one matches of IoU > 0.5; regions that lie on ignored lines do not count."""
    ignored = [_shape(line.polygon) for line in lines if line.ignored]
    wanted = [_shape(line.polygon) for line in lines if not line.ignored]
    found = [_shape(quad) for quad in quads]
    found = [f for f in found if not any(f.intersection(i).area > 0.5 * f.area for i in ignored)]
    free = set(range(len(found)))
    matched = 0
    for truth in wanted:
        overlaps = [(_iou(truth, found[k]), k) for k in free if truth.intersects(found[k])]
        best, k = max(overlaps, default=(0.0, -1))
        if best > 0.5:
            free.discard(k)
            matched += 1
    return Score(matched, len(wanted), len(found))


def _shape(polygon: npt.NDArray[np.float32]) -> Polygon:
    return Polygon(polygon).buffer(0)


def _iou(a: Polygon, b: Polygon) -> float:
    shared = a.intersection(b).area
    return float(shared / max(a.area + b.area - shared, 1e-6))


@torch.inference_mode()
def validate(
    model: nn.Module, pages: Sequence[PageFile], unclip_ratio: float, short_side: int, *, bfloat16: bool
) -> Score:
    """Return the counts over `pages`, each resized as inference would."""
    device = next(model.parameters()).device
    total = Score()
    for page in pages:
        image, lines = read_page(page, 1600)
        prepared = preprocess(image, PreprocessConfig(short_side=short_side))
        ratio = np.float32(prepared.network_size)[::-1] / np.float32(image.shape[1::-1])
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            probability = model(prepared.tensor.to(device))
        quads = find_quads(probability[0, 0].float().cpu().numpy(), unclip_ratio)
        counts = match([Line(line.polygon * ratio, line.text) for line in lines], quads)
        total = Score(*(a + b for a, b in zip(total, counts, strict=True)))
    return total
