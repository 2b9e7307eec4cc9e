"""A weights file of either kind, understood: tensors by name, configuration, origin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import torch

from dbcpu.checkpoint import native
from dbcpu.checkpoint.architecture import check_complete, infer_model_config, non_finite
from dbcpu.checkpoint.families import family_of
from dbcpu.checkpoint.family import count_names, rename_tensors
from dbcpu.checkpoint.read import read_checkpoint
from dbcpu.config import DetectorConfig, OffsetStrideChoice, config_to_mapping, overlay, read_config
from dbcpu.errors import CheckpointError, ConfigError, UsageError
from dbcpu.model.network import Network, build_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from dbcpu.checkpoint.read import RawCheckpoint
    from dbcpu.config import ModelConfig, OffsetStride, StatedConfig


_ATTENTION = "decoder.concat_attention."


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Weights that were understood, and checked but for their finiteness.

    Attributes:
        raw: the file they were read from.
        tensors: by the original's names, in the stored dtype.
        config: everything inference needs beside the tensors.
        origin: of the tensors; for an old checkpoint the file itself.
        converted: whether the file is a model file.
    """

    raw: RawCheckpoint
    tensors: dict[str, Tensor]
    config: DetectorConfig
    origin: native.Origin
    converted: bool


def read_weights(
    path: Path,
    *,
    config: Path | None = None,
    offset_stride: OffsetStrideChoice = "auto",
    family: str | None = None,
    attention: bool = True,
) -> Weights:
    """Read a weights file and understand it.

    Args:
        path: an old checkpoint or a model file.
        config: a YAML file that must agree with the weights, and whose other settings replace the defaults.
        offset_stride: overrules the file; "auto" reads it off the weights.
        family: name of the checkpoint family; None recognises it.
        attention: False leaves out the adaptive scale fusion of DB++, as EasyOCR does with the same files.

    Raises:
        CheckpointError: unreadable, refused, of no known family, incomplete or of other shapes.
        ConfigError: the configuration is malformed, or says something else than the weights.
        UsageError: there is no such family or stride, or a family is given for a model file, which knows its own.
    """
    if offset_stride not in (choices := get_args(OffsetStrideChoice)):
        raise UsageError(f"offset_stride must be one of {', '.join(choices)}, not {offset_stride!r}")
    stated = None if config is None else read_config(config)
    stride: OffsetStride | None = None if offset_stride == "auto" else offset_stride
    raw = read_checkpoint(path)
    weights = _read_old(raw, stride, family) if not native.is_model_file(raw) else _read_model_file(raw, stride, family)
    if not attention:
        weights = _without_attention(weights)
    if stated is not None:
        stated_config = _with_stated(weights.config, stated, path, overruled=stride is not None)
        weights = replace(weights, config=stated_config)
    check_complete(weights.tensors, weights.config.model, path)
    return weights


def _read_old(raw: RawCheckpoint, stride: OffsetStride | None, family_name: str | None) -> Weights:
    family = family_of(raw.tensors, raw.path, stated=family_name)
    renamed = rename_tensors(raw.tensors, family, raw.path)
    model = infer_model_config(renamed.tensors, raw.path, offset_stride=stride or family.offset_stride)
    try:
        settings = family.settings(model, raw.extras)
    except ConfigError as error:
        raise ConfigError(
            f"in the configuration inside the checkpoint, {error.what}",
            where=raw.path,
            remedy="save its state_dict alone, and say what differs from the defaults with --config",
        ) from None
    return Weights(
        raw=raw,
        tensors=renamed.tensors,
        config=DetectorConfig(model=model, preprocess=settings.preprocess, postprocess=settings.postprocess),
        origin=native.Origin(family=family.name, file_name=raw.path.name, sha256=raw.sha256, dropped=renamed.dropped),
        converted=False,
    )


def _read_model_file(raw: RawCheckpoint, stride: OffsetStride | None, family_name: str | None) -> Weights:
    config, origin = native.read_description(raw)
    if family_name not in (None, origin.family):
        raise UsageError(f"a model file of the family {origin.family}", where=raw.path, remedy="leave out --family")
    if stride is not None:
        config = replace(config, model=replace(config.model, offset_stride=stride))
    return Weights(raw=raw, tensors=raw.tensors, config=config, origin=origin, converted=True)


def _without_attention(weights: Weights) -> Weights:
    left_out = [name for name in weights.tensors if name.startswith(_ATTENTION)]
    reasons = tuple((name, "left out on request") for name in left_out)
    model = replace(weights.config.model, attention="none", attention_channels=64)
    return replace(
        weights,
        tensors={name: tensor for name, tensor in weights.tensors.items() if name not in left_out},
        config=replace(weights.config, model=model),
        origin=replace(weights.origin, dropped=weights.origin.dropped + reasons),
    )


def _with_stated(config: DetectorConfig, stated: StatedConfig, path: Path, *, overruled: bool) -> DetectorConfig:
    found = config_to_mapping(config.model)
    for key, value in stated.model.items():
        if key == "offset_stride" and overruled:
            continue
        if found[key] != value:
            remedy = "use the configuration that belongs to these weights"
            if key == "offset_stride":
                remedy += ", or overrule both with --offset-stride"
            raise ConfigError(
                f"{stated.path} states {key}: {value}, but the weights of {path} have {key}: {found[key]}",
                remedy=remedy,
            )
    return replace(
        config,
        preprocess=overlay(config.preprocess, stated.preprocess, where=stated.path, section="preprocess"),
        postprocess=overlay(config.postprocess, stated.postprocess, where=stated.path, section="postprocess"),
    )


def require_finite(weights: Weights) -> None:
    """Refuse weights with which the network computes NaN.

    Raises:
        CheckpointError: naming the tensors.
    """
    if broken := non_finite(weights.tensors):
        raise CheckpointError(
            f"NaN, infinity or a negative variance in {count_names(broken)}",
            where=weights.raw.path,
            remedy="the training diverged or the file is damaged; take an earlier checkpoint",
        )


def load_network(tensors: dict[str, Tensor], config: ModelConfig) -> Network:
    """Build the network of `config` and give it its weights, as float32, in evaluation mode.

    Args:
        tensors: complete, by the original's names; see `check_complete`.
        config: of the network.
    """
    with torch.device("meta"):
        network = build_model(config)
    # Counters of training steps are part of the module and of no use here.
    state = {name: torch.zeros((), dtype=torch.int64) for name in network.state_dict() if name not in tensors}
    state.update((name, tensor.to(torch.float32)) for name, tensor in tensors.items())
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)
