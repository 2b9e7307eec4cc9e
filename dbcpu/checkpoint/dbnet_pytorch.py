"""DBNet.pytorch (WenmuZhou): its own neck, unmodulated deformable convolutions, names of before and after June 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbcpu.checkpoint.family import DROP_COUNTERS, Drop, Family, Rename, Settings
from dbcpu.config import PostprocessConfig, PreprocessConfig, overlay

if TYPE_CHECKING:
    from dbcpu.config import ModelConfig

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# What its post-processing calls the settings of ours.
_POSTPROCESSING = {
    "thresh": "binarize_threshold",
    "box_thresh": "score_threshold",
    "max_candidates": "max_candidates",
    "unclip_ratio": "unclip_ratio",
}


def _settings(model: ModelConfig, extras: Mapping[str, Any]) -> Settings:
    del model
    config = extras.get("config")
    preprocess = PreprocessConfig(
        short_side=_short_side(config) or 1024,
        rounding="nearest",
        resized_as="uint8",
        channels="bgr" if _find(config, "img_mode") == "BGR" else "rgb",
        mean=_MEAN,
        std=_STD,
        scale=1.0,
    )
    preprocess = overlay(preprocess, _normalisation(config))
    postprocess = PostprocessConfig(score_threshold=0.7, unclip_ratio=1.5, score_over="contour", polygon_epsilon=0.005)
    stated = _at(config, "post_processing", "args")
    if isinstance(stated, Mapping):
        known = {ours: stated[theirs] for theirs, ours in _POSTPROCESSING.items() if theirs in stated}
        postprocess = overlay(postprocess, known)
    return Settings(preprocess=preprocess, postprocess=postprocess)


def _at(config: object, *keys: str) -> object:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _find(config: object, key: str) -> object:
    """Return the first value under `key`, however deep: where it stands differs between versions."""
    if isinstance(config, Mapping):
        if key in config:
            return config[key]
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        return next((found for inner in config if (found := _find(inner, key)) is not None), None)
    return None


def _normalisation(config: object) -> dict[str, object]:
    """Return what its prediction normalises by, the transforms of training, where the configuration states them."""
    stated = _find(_at(config, "dataset", "train"), "transforms")
    transforms = [t for t in stated if isinstance(t, Mapping)] if isinstance(stated, (list, tuple)) else []
    if not any(transform.get("type") == "ToTensor" for transform in transforms):
        return {}
    stated = next((_at(t, "args") for t in transforms if t.get("type") == "Normalize"), {"mean": 0.0, "std": 1.0})
    return {key: _grey_levels(_at(stated, key)) for key in ("mean", "std")}


def _grey_levels(shares: object) -> object:
    """Return numbers in grey levels that ToTensor makes shares of white; one number is that of all channels."""
    stated = shares if isinstance(shares, (list, tuple)) else [shares]
    numbers = [round(share * 255, 6) for share in stated if isinstance(share, (int, float))]
    if len(numbers) != len(stated):
        return shares  # for the check of the configuration to refuse
    return numbers * 3 if len(numbers) == 1 else numbers


def _short_side(config: object) -> int | None:
    """Return the size that validation resized to, where the configuration inside the checkpoint says so."""
    size = _find(_at(config, "dataset", "validate"), "short_size")
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 14 else None


def _rules(neck: str, head: str) -> tuple[Rename | Drop, ...]:
    return (
        DROP_COUNTERS,
        Drop(r"^backbone\.(fc|smooth)\.", "classifier of ImageNet or left over, never used for detection"),
        Rename(r"backbone\.", "backbone."),
        Rename(rf"{neck}\.(?=(?:reduce_conv_c|smooth_p)\d\.|conv\.)", "decoder.neck."),
        Rename(rf"{head}\.binarize\.", "decoder.binarize."),
        Rename(rf"{head}\.thresh\.", "decoder.thresh."),
    )


def _family(name: str, title: str, neck: str, head: str) -> Family:
    return Family(
        name=name,
        title=title,
        explanation="its own neck, deformable convolutions without masks; red, green, blue; scores over contours",
        signature=(r"backbone\.conv1\.", rf"{neck}\.reduce_conv_c2\.conv\.", rf"{head}\.binarize\.0\.weight"),
        rules=_rules(neck, head),
        settings=_settings,
        offset_stride="strided",
    )


FAMILY = _family("dbnet.pytorch", "DBNet.pytorch", "neck", "head")
FAMILY_2020 = _family(
    "dbnet.pytorch-2020", "DBNet.pytorch of before June 2020", "segmentation_body", "segmentation_head"
)
