"""mmocr: DBNet and DBNet++ of the 0.x (`bbox_head`) and the 1.x series (`det_head`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dbcpu.checkpoint.family import DROP_COUNTERS, Drop, Family, Rename, Settings
from dbcpu.config import ORIGINAL_MEAN, PostprocessConfig, PreprocessConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dbcpu.config import ModelConfig

_LEVELS = 4
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _reverse_levels(weight: Tensor) -> Tensor:
    """Reverse the four blocks of input channels: mmocr concatenates [p2, p3, p4, p5], the original the other way."""
    return torch.cat(weight.chunk(_LEVELS, dim=1)[::-1], dim=1) if weight.ndim == 4 else weight  # refused later


def _reverse_outputs(weight: Tensor) -> Tensor:
    return weight.flip(0) if weight.ndim else weight


def _rules(head: str) -> tuple[Rename | Drop, ...]:
    attention = "decoder.concat_attention.enhanced_attention"
    return (
        DROP_COUNTERS,
        Drop(r"^data_preprocessor\.", "channel statistics, part of the configuration"),
        Rename(r"(backbone\.layer\d\.\d+)\.conv2\.conv_offset\.", r"\1.conv2_offset."),
        Rename(r"backbone\.", "backbone."),
        *(Rename(rf"neck\.lateral_convs\.{i}\.conv\.", f"decoder.in{i + 2}.") for i in range(_LEVELS)),
        Rename(r"neck\.smooth_convs\.0\.conv\.", "decoder.out2."),
        *(Rename(rf"neck\.smooth_convs\.{i}\.conv\.", f"decoder.out{i + 2}.0.") for i in range(1, _LEVELS)),
        Rename(r"neck\.asf_conv\.conv\.weight", "decoder.concat_attention.conv.weight", _reverse_levels),
        Rename(r"neck\.asf_conv\.conv\.bias", "decoder.concat_attention.conv.bias"),
        Rename(r"neck\.asf_attn\.channel_wise\.0\.conv\.", f"{attention}.channel_wise.1."),
        Rename(r"neck\.asf_attn\.channel_wise\.1\.conv\.", f"{attention}.channel_wise.3."),
        Rename(r"neck\.asf_attn\.spatial_wise\.0\.conv\.", f"{attention}.spatial_wise.0."),
        Rename(r"neck\.asf_attn\.spatial_wise\.1\.conv\.", f"{attention}.spatial_wise.2."),
        Rename(r"neck\.asf_attn\.attention_wise\.conv\.", f"{attention}.attention_wise.0.", _reverse_outputs),
        Rename(rf"{head}\.binarize\.0\.weight", "decoder.binarize.0.weight", _reverse_levels),
        Rename(rf"{head}\.threshold\.0\.weight", "decoder.thresh.0.weight", _reverse_levels),
        Rename(rf"{head}\.binarize\.", "decoder.binarize."),
        Rename(rf"{head}\.threshold\.", "decoder.thresh."),
    )


def _settings(model: ModelConfig, *, mean: tuple[float, float, float]) -> Settings:
    long_side, short_side = (1333, 736) if model.backbone == "resnet18" else (4068, 1024)
    return Settings(
        preprocess=PreprocessConfig(
            resize="fit",
            long_side=long_side,
            short_side=short_side,
            resized_as="uint8",
            channels="rgb",
            mean=mean,
            std=_STD,
            scale=1.0,
        ),
        postprocess=PostprocessConfig(
            score_threshold=0.3,
            unclip_ratio=1.5,
            max_candidates=3000,
            quad_of="polygon",
            polygon_epsilon=0.01 if model.attention == "none" else 0.002,
        ),
    )


def _settings_0(model: ModelConfig, _: object) -> Settings:
    # 0.x: the deformable ResNet-50 and DB++ configurations have the original's means, the others ImageNet's.
    original = model.attention != "none" or (model.deformable and model.backbone != "resnet18")
    return _settings(model, mean=ORIGINAL_MEAN if original else _MEAN)


def _settings_1(model: ModelConfig, _: object) -> Settings:
    return _settings(model, mean=_MEAN)


_EXPLANATION = "red, green, blue; pictures fitted and padded; offset convolutions of stride 2; quads around polygons"

FAMILY_0 = Family(
    name="mmocr-0.x",
    title="mmocr 0.x",
    explanation=_EXPLANATION,
    signature=(r"neck\.lateral_convs\.0\.conv\.", r"bbox_head\.binarize\.0\.weight"),
    rules=_rules("bbox_head"),
    settings=_settings_0,
    offset_stride="strided",
)
FAMILY_1 = Family(
    name="mmocr-1.x",
    title="mmocr 1.x",
    explanation=_EXPLANATION,
    signature=(r"neck\.lateral_convs\.0\.conv\.", r"det_head\.binarize\.0\.weight"),
    rules=_rules("det_head"),
    settings=_settings_1,
    offset_stride="strided",
)
