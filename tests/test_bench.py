"""The benchmark is worth nothing where its parts compute something else than they say."""

from __future__ import annotations

import time

import torch

from dbcpu.ops import deform_conv2d
from scripts.bench import by_turns
from scripts.contenders import naive_deform_conv2d


def test_the_naive_operator_computes_what_ours_does():
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 9, 11, generator=random), torch.randn(4, 3, 3, 3, generator=random)
    offset, mask = torch.randn(2, 18, 5, 6, generator=random) * 3, torch.rand(2, 9, 5, 6, generator=random)
    steps = {"stride": (2, 2), "padding": (2, 2), "dilation": (2, 2), "mask": mask}
    expected = deform_conv2d(x, offset, weight, None, **steps)
    assert torch.allclose(naive_deform_conv2d(x, offset, weight, None, **steps), expected, atol=1e-5)


def test_contenders_take_turns_and_each_is_timed():
    order: list[str] = []
    slow, quick = by_turns([lambda: (order.append("slow"), time.sleep(0.01)), lambda: order.append("quick")], 4)
    assert order == ["slow", "quick"] * 4
    assert min(slow) >= 0.01 > max(quick)
