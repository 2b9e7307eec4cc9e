from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import golden_entries
from torch.nn import functional as F

from dbcpu.config import Attention, ModelConfig
from dbcpu.detector import load_detector
from dbcpu.model.decoder import ScaleFusion
from dbcpu.model.network import build_model
from dbcpu.model.resnet import read_with_output_plane

VARIANTS = sorted({entry["variant"] for entry in golden_entries("probability_maps.json")})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_probability_maps_are_those_of_the_original_code(
    variant: str, golden: Path, synthetic: ModuleType, tmp_path: Path
):
    synthetic.save_checkpoint(variant, tmp_path / "final")
    with np.load(golden / "probability_maps.npz") as maps:
        for entry in golden_entries("probability_maps.json"):
            if entry["variant"] == variant:
                detector = load_detector(tmp_path / "final", short_side=entry["short_side"])
                found = detector.probability_map(synthetic.image(entry["image"]))
                np.testing.assert_allclose(found, maps[entry["key"]].squeeze(), rtol=0, atol=5e-5)


def test_the_two_meanings_of_the_stride_2_blocks_differ():
    full = torch.arange(2 * 3 * 4 * 6, dtype=torch.float64).reshape(2, 3, 4, 6)
    read = read_with_output_plane(full, 3, 2, 3)
    assert read.shape == (2, 3, 2, 3)
    assert read[0].flatten().tolist() == list(range(18))  # the first numbers of the memory, not every second pixel
    assert read[1].flatten().tolist() == list(range(72, 90))


def _scale_channel(x: torch.Tensor, fusion: ScaleFusion) -> torch.Tensor:
    attention = fusion.enhanced_attention
    pooled = x.mean((2, 3), keepdim=True)
    hidden = F.conv2d(pooled, attention.fc1.weight)
    bn = attention.bn
    hidden = (hidden - bn.running_mean.view(1, -1, 1, 1)) / (bn.running_var.view(1, -1, 1, 1) + bn.eps).sqrt()
    hidden = (hidden * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)).clamp(min=0)
    logits = F.conv2d(hidden, attention.fc2.weight)
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def test_scale_channel_attention_follows_its_formula():
    torch.manual_seed(0)
    fusion = ScaleFusion(16, 8, "scale_channel").double().eval()
    fusion.enhanced_attention.bn.running_mean.normal_()
    fusion.enhanced_attention.bn.running_var.uniform_(0.5, 2)
    levels = [torch.randn(2, 4, 6, 5, dtype=torch.float64) for _ in range(4)]
    weights = _scale_channel(fusion.conv(torch.cat(levels, 1)), fusion)
    # Resizing a single pixel bilinearly gives the same number everywhere.
    weights = F.interpolate(weights, size=(6, 5), mode="bilinear")
    for index, (level, weighted) in enumerate(zip(levels, fusion(levels), strict=True)):
        torch.testing.assert_close(weighted, level * weights[:, index : index + 1])


@pytest.mark.parametrize("attention", ["none", "scale_spatial", "scale_channel_spatial", "scale_channel"])
@pytest.mark.parametrize("serial", [False, True])
def test_a_network_in_training_gives_both_maps_and_gradients(attention: Attention, serial: bool):
    config = ModelConfig(
        backbone="resnet18", deformable=True, attention=attention, threshold_head=True, serial=serial, inner_channels=64
    )
    network = build_model(config).train()
    probability, threshold = network.forward_training(torch.randn(2, 3, 64, 96))
    assert probability.shape == threshold.shape == (2, 1, 64, 96)
    (probability.mean() + threshold.mean()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert [name for name in without if "concat_attention" not in name] == []


def test_training_without_a_threshold_head_says_what_to_do():
    network = build_model(ModelConfig(backbone="resnet18")).eval()
    with pytest.raises(RuntimeError, match="threshold_head=True"):
        network.forward_training(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("backbone", ["resnet34", "resnet101", "resnet152"])
def test_deeper_networks_have_the_blocks_of_their_name(backbone: Any):
    with torch.device("meta"):
        network = build_model(ModelConfig(backbone=backbone, deformable=True))
    blocks = sum(
        1 for name in network.state_dict() if name.startswith("backbone.layer") and name.endswith("bn1.weight")
    )
    depth = int(backbone.removeprefix("resnet"))
    assert blocks * (2 if depth < 50 else 3) + 2 == depth
    probability = network(torch.empty(1, 3, 64, 32, device="meta"))
    assert probability.shape == (1, 1, 64, 32)
