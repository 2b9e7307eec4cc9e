"""Losses of the DB paper, section 3.5, in float32 whatever the network computed in.

Balanced cross-entropy on the probability map, L1 on the threshold map, dice on the approximate binary map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVE_RATIO = 3.0  # background pixels that count per kernel pixel, the hardest first
SLIVER = 100.0  # pixels of a kernel, few enough that missing them costs little: what a crop's edge leaves of a line
AMPLIFICATION = 50.0  # k of the differentiable binarization
BORDER_WEIGHT = 10.0
PROBABILITY_WEIGHT = 5.0  # original: l1_scale=10, bce_scale=5, dice 1


class Losses(NamedTuple):
    """Scalars; `total` is the weighted sum to descend on, `border` None where there is no threshold map."""

    total: Tensor
    probability: Tensor
    binary: Tensor
    border: Tensor | None


def balanced_cross_entropy(probability: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy over all kernel pixels and three times as many background pixels, the hardest.

    Args:
        probability: in (0, 1), shape (N, H, W).
        target: 0 or 1, same shape.
        mask: 0 leaves a pixel out, same shape.
    """
    loss = F.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), target, reduction="none") * mask
    positive = target * mask
    negative = (1 - target) * mask
    positives = positive.sum()
    # A batch without text still has to learn that there is none.
    wanted = torch.clamp(positives * NEGATIVE_RATIO, min=target.numel() / 100)
    count = int(torch.minimum(negative.sum(), wanted).item())
    hardest = (loss * negative).flatten().topk(count, sorted=False).values if count else loss.new_zeros(1)
    return ((loss * positive).sum() + hardest.sum()) / (positives + count + 1e-6)


def dice_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - dice coefficient, from 0 to 1, averaged over the crops with text.

    Over the whole batch, as in the original, a sign of one word counts for next to nothing beside a page of lines.

    Args:
        prediction: in (0, 1), shape (N, H, W).
        target: 0 or 1, same shape.
        mask: 0 leaves a pixel out, same shape.
    """
    overlap, text, found = ((m * mask).sum((1, 2)) for m in (prediction * target, target, prediction))
    dice = (2 * overlap + SLIVER) / (found + text + SLIVER)
    with_text = text > 0
    return ((1 - dice) * with_text).sum() / with_text.sum().clamp(min=1)


def detection_losses(
    probability: Tensor,
    threshold: Tensor | None,
    kernel: Tensor,
    kernel_mask: Tensor,
    *borders: Tensor,
) -> Losses:
    """Return the losses of a batch, all arguments of shape (N, H, W).

    Args:
        probability: the network's probability map.
        threshold: its threshold map; None trains without, with dice on the probability map itself.
        kernel: target of the probability map, with `kernel_mask`.
        kernel_mask: where it counts.
        borders: target of the threshold map, and where it counts; may be left out where there is no threshold map.
    """
    probability = probability.float()
    cross_entropy = balanced_cross_entropy(probability, kernel, kernel_mask)
    if threshold is None:
        dice = dice_loss(probability, kernel, kernel_mask)
        return Losses(PROBABILITY_WEIGHT * cross_entropy + dice, cross_entropy, dice, None)
    border, border_mask = borders
    threshold = threshold.float()
    dice = dice_loss(torch.sigmoid(AMPLIFICATION * (probability - threshold)), kernel, kernel_mask)
    band = ((threshold - border).abs() * border_mask).sum() / (border_mask.sum() + 1e-6)
    total = PROBABILITY_WEIGHT * cross_entropy + dice + BORDER_WEIGHT * band
    return Losses(total, cross_entropy, dice, band)
