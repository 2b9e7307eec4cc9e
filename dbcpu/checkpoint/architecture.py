"""The architecture of a network, read from the names and shapes of its weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from dbcpu.checkpoint.family import count_names
from dbcpu.config import ModelConfig
from dbcpu.errors import CheckpointError
from dbcpu.model.network import build_model
from dbcpu.model.resnet import LAYOUTS, MASK_CHANNELS, OFFSET_CHANNELS, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from dbcpu.config import Attention, Backbone, OffsetStride

_STRIDE_2_BLOCKS = tuple(f"backbone.layer{layer}.0.conv2_offset" for layer in (2, 3, 4))
# With an offset convolution of stride 1 before an operator of stride 2, only rows 0-4 and, of masks, 18-20 are ever
# read, so these never receive a gradient and stay at their initial zeros.
_NEVER_TRAINED_ROWS: dict[tuple[int, ...], list[int]] = {
    (OFFSET_CHANNELS,): list(range(5, 18)),
    (OFFSET_CHANNELS + MASK_CHANNELS,): [*range(5, 18), *range(21, 27)],
}
_COUNTER = ".num_batches_tracked"
_VARIANCE = ".running_var"


def infer_model_config(
    tensors: Mapping[str, Tensor], path: Path, *, offset_stride: OffsetStride | None = None
) -> ModelConfig:
    """Read the architecture off the weights.

    Args:
        tensors: by the original's names.
        path: of the checkpoint, for messages.
        offset_stride: overrules what the zeros in the offset convolutions say.

    Raises:
        CheckpointError: tensors that tell the architecture are missing or of no known form, or the three offset
            convolutions disagree and `offset_stride` is not given.
    """
    backbone, deformable = _backbone(tensors, path), any(".conv2_offset.weight" in name for name in tensors)
    bottleneck = backbone in LAYOUTS and LAYOUTS[backbone].bottleneck
    if offset_stride is None:
        offset_stride = _offset_stride(tensors, path) if deformable and bottleneck else "original"
    smoothed = any(name.startswith("decoder.neck.") for name in tensors)
    inner = _shape(tensors, "decoder.binarize.0.weight", path)[1]
    if inner % 4 or inner == 0:
        raise CheckpointError(f"decoder.binarize.0 takes {inner} channels, not a multiple of 4", where=path)
    attention = _attention(tensors)
    fusion = "decoder.concat_attention.conv.weight"
    threshold = "decoder.thresh.0.weight"
    return ModelConfig(
        backbone=backbone,
        deformable=deformable,
        modulated=not deformable or _offset_channels(tensors, path) == OFFSET_CHANNELS + MASK_CHANNELS,
        offset_stride=offset_stride,
        neck="smoothed" if smoothed else "original",
        inner_channels=inner,
        decoder_bias="decoder.in5.bias" in tensors,
        head_bias="decoder.binarize.0.bias" in tensors,
        attention=attention,
        attention_channels=64 if attention == "none" else _shape(tensors, fusion, path)[0],
        threshold_head=threshold in tensors,
        serial=threshold in tensors and _shape(tensors, threshold, path)[1] == inner + 1,
    )


def _offset_channels(tensors: Mapping[str, Tensor], path: Path) -> int:
    found = {t.shape[0] for name, t in tensors.items() if name.endswith(".conv2_offset.weight") and t.ndim == 4}
    known = (OFFSET_CHANNELS, OFFSET_CHANNELS + MASK_CHANNELS)
    if len(found) != 1 or found.isdisjoint(known):
        raise CheckpointError(f"its offset convolutions have {sorted(found)} channels, not one of {known}", where=path)
    return found.pop()


def _shape(tensors: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"{name} is missing", where=path, remedy=_INCOMPLETE)
    shape = tuple(tensors[name].shape)
    if len(shape) != 4:
        raise CheckpointError(f"{name} has the shape {list(shape)}, not that of a convolution", where=path)
    return shape


_INCOMPLETE = "the file is incomplete, or of another network"


def _backbone(tensors: Mapping[str, Tensor], path: Path) -> Backbone:
    if any(name.startswith("backbone.features.") for name in tensors):
        return "mobilenet_v3_large"
    blocks = [0, 0, 0, 0]
    for name in tensors:
        if match := re.match(r"backbone\.layer([1-4])\.(\d{1,3})\.", name):
            layer, block = int(match[1]) - 1, int(match[2])
            blocks[layer] = max(blocks[layer], block + 1)
    found = Layout(bottleneck="backbone.layer1.0.conv3.weight" in tensors, blocks=tuple(blocks))  # type: ignore[arg-type]
    for name, layout in LAYOUTS.items():
        if layout == found:
            return name  # type: ignore[return-value]
    kind = "bottleneck" if found.bottleneck else "basic"
    raise CheckpointError(
        f"a ResNet with {blocks} {kind} blocks, none of {', '.join(LAYOUTS)}", where=path, remedy=_INCOMPLETE
    )


def _attention(tensors: Mapping[str, Tensor]) -> Attention:
    place = "decoder.concat_attention.enhanced_attention."
    if f"{place}fc1.weight" in tensors:
        return "scale_channel"
    if f"{place}channel_wise.1.weight" in tensors:
        return "scale_channel_spatial"
    if any(name.startswith("decoder.concat_attention.") for name in tensors):
        return "scale_spatial"
    return "none"


def _offset_stride(tensors: Mapping[str, Tensor], path: Path) -> OffsetStride:
    untrained = []
    for name in _STRIDE_2_BLOCKS:
        parts = [tensors[key] for key in (f"{name}.weight", f"{name}.bias") if key in tensors]
        channels = {tuple(part.shape[:1]) for part in parts}
        rows = _NEVER_TRAINED_ROWS.get(channels.pop()) if len(channels) == 1 else None
        if rows is None:
            return "original"  # incomplete: the check of names and shapes lists what is wrong
        untrained.append(not any(bool(part[rows].any()) for part in parts))
    if all(untrained):
        return "original"
    if not any(untrained):
        return "strided"
    found = ", ".join(f"layer{i}: {'original' if u else 'strided'}" for i, u in enumerate(untrained, 2))
    raise CheckpointError(
        f"its three stride-2 blocks disagree about the stride of their offset convolutions ({found})",
        where=path,
        remedy="say which it is with --offset-stride original or --offset-stride strided",
    )


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that the network of `config` needs, in the network's order."""
    with torch.device("meta"):
        network = build_model(config)
    return {name: tuple(t.shape) for name, t in network.state_dict().items() if not name.endswith(_COUNTER)}


def check_complete(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
    """Compare the weights with what the network needs, name by name.

    Raises:
        CheckpointError: tensors that are missing, of another shape or kind, or that the network has no place for.
    """
    expected = expected_shapes(config)
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    problems = [
        f"{word} {count_names(names)}"
        for word, names in (("missing", missing), ("without a place", surplus), ("of a wrong shape", misshapen))
        if names
    ]
    kinds = [f"{n} {t.dtype}".replace("torch.", "") for n, t in tensors.items() if not t.is_floating_point()]
    if kinds:
        problems.append(f"not of floating point {count_names(kinds)}")
    if problems:
        raise CheckpointError(
            f"does not fit a {describe(config)} network: {'; '.join(problems)}", where=path, remedy=_INCOMPLETE
        )


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity as float32, or variances whose root would be NaN."""
    # NaN and infinity survive any sum, and a sum takes a tenth of the time of looking at each number.
    suspects = [name for name, tensor in tensors.items() if not tensor.float().sum(dtype=torch.float64).isfinite()]
    variances = [name for name in tensors if name.endswith(_VARIANCE) and bool((tensors[name].float() < 0).any())]
    return [name for name in suspects if not bool(torch.isfinite(tensors[name].float()).all())] + variances


def describe(config: ModelConfig) -> str:
    """Return the architecture in a few words, such as `deformable resnet50 with ASF (scale_spatial)`."""
    words = f"{'deformable ' if config.deformable else ''}{config.backbone}"
    return words if config.attention == "none" else f"{words} with ASF ({config.attention})"
