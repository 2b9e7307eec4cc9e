"""How good the network is on pages it never trained on: whole pages at inference's size, matched at IoU 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from shapely.geometry import Polygon
from torch import nn

from dbcpu.config import PostprocessConfig, PreprocessConfig
from dbcpu.postprocess import detect_text
from dbcpu.preprocess import preprocess
from scripts.train.truth import Line, PageFile, read_page

MAX_SHORT_SIDE = 1600  # of a page in memory
SCORE_THRESHOLD = 0.5  # the best one is found after training, by a sweep


class Score(NamedTuple):
    """Counts over pages: lines matched, lines to find, regions found."""

    matched: int = 0
    lines: int = 0
    found: int = 0

    def plus(self, other: Score) -> Score:
        """Return the counts over the pages of both."""
        return Score(self.matched + other.matched, self.lines + other.lines, self.found + other.found)

    @property
    def f_measure(self) -> float:
        """2PR / (P + R), 0 without lines and regions."""
        return 2 * self.matched / max(self.lines + self.found, 1)


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
    """Return the counts over `pages`, each going through all of inference."""
    device = next(model.parameters()).device
    postprocess = PostprocessConfig(score_threshold=SCORE_THRESHOLD, unclip_ratio=unclip_ratio)
    total = Score()
    for page in pages:
        image, lines = read_page(page, MAX_SHORT_SIDE)
        prepared = preprocess(image, PreprocessConfig(short_side=short_side))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            probability = model(prepared.tensor.to(device))[0, 0].float().cpu().numpy()
        instances = detect_text(probability, prepared.image_size, postprocess).instances
        total = total.plus(match(lines, [instance.polygon for instance in instances]))
    return total
