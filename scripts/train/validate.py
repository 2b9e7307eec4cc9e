"""How good the network is on pages it never trained on: whole pages at inference's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dbcpu.config import PostprocessConfig, PreprocessConfig
from dbcpu.evaluate import Overlaps, Tally, measure_overlaps, score_page
from dbcpu.postprocess import detect_text
from dbcpu.preprocess import preprocess
from dbcpu.result import TextInstance
from dbcpu.truth import Detection, TruthInstance
from scripts.train.truth import Line, PageFile, read_page

MAX_SHORT_SIDE = 1600  # of a page in memory
SCORE_THRESHOLD = 0.5  # the best one is found after training, by a sweep


def measure_page(lines: Sequence[Line], instances: Sequence[TextInstance]) -> Overlaps:
    """Measure how the regions found on a page lie to its lines."""
    return measure_overlaps(
        [TruthInstance(polygon=line.polygon.astype(float), ignored=line.ignored) for line in lines],
        [Detection(polygon=instance.polygon, score=instance.score) for instance in instances],
    )


@torch.inference_mode()
def validate(
    model: nn.Module, pages: Sequence[PageFile], unclip_ratio: float, short_side: int, *, bfloat16: bool
) -> Tally:
    """Return the counts over `pages`, each going through all of inference, matched one to one at IoU 0.5."""
    device = next(model.parameters()).device
    postprocess = PostprocessConfig(score_threshold=SCORE_THRESHOLD, unclip_ratio=unclip_ratio)
    total = Tally()
    for page in pages:
        image, lines = read_page(page, MAX_SHORT_SIDE)
        prepared = preprocess(image, PreprocessConfig(short_side=short_side))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            probability = model(prepared.tensor.to(device))[0, 0].float().cpu().numpy()
        instances = detect_text(probability, prepared.image_size, postprocess).instances
        total += score_page(measure_page(lines, instances), "iou").tally
    return total
