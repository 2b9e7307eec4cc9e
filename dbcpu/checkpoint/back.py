"""A network's weights written back as the original code saves them, so that it can go on training them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dbcpu.config import PreprocessConfig
from dbcpu.errors import CheckpointError
from dbcpu.files import check_target, complete_file
from dbcpu.model.network import build_model
from dbcpu.model.resnet import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from dbcpu.config import DetectorConfig, ModelConfig

_PREFIX = "model.module."  # of DataParallel inside the original's training model
_ATTENTION_CHANNELS = 64  # the original always makes a quarter of 256 channels
_NORMALISATION = ("channels", "mean", "std", "scale")  # fixed in the original's code; sizes and thresholds are options
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of PyTorch 1.2


def write_original(
    path: Path, tensors: Mapping[str, Tensor], config: DetectorConfig, *, source: Path, replace: bool = False
) -> None:
    """Write a checkpoint of the original code: its names and prefix, in the serialisation that PyTorch 1.2 reads.

    Args:
        path: of the new file.
        tensors: by the original's bare names, kept bit for bit.
        config: of the network and its input.
        source: the file the tensors came from, for messages.
        replace: whether an existing file may be replaced.

    Raises:
        CheckpointError: the original code would misread the network.
        OutputError: the file exists already, or cannot be written.
    """
    unknown = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.dtype not in _DTYPES})
    reason = f"PyTorch 1.2 has no {', '.join(unknown)}" if unknown else misread_by_original(config)
    if reason:
        raise CheckpointError(f"the original code would misread it: {reason}", where=source)
    check_target(path, replace=replace)
    with torch.device("meta"):
        names = build_model(config.model).state_dict()
    # Counters of training steps have no weights to keep: training starts counting again.
    state = {_PREFIX + name: tensors.get(name, torch.zeros((), dtype=torch.int64)) for name in names}
    with complete_file(path) as partial:
        try:
            torch.save(state, partial, _use_new_zipfile_serialization=False)
            written = torch.load(partial, weights_only=True)
        except RuntimeError as error:  # torch's own word for a full disk
            raise OSError(str(error)) from None
        if not all(torch.equal(written[name], tensor) for name, tensor in state.items()):
            raise OSError("what was read back differs from what was written")


def misread_by_original(config: DetectorConfig) -> str | None:
    """Return why the original code would compute something else with such a network, or None where it would not."""
    return _other_network(config.model) or _other_input(config.preprocess)


def _other_input(config: PreprocessConfig) -> str | None:
    original = PreprocessConfig()
    other = [name for name in _NORMALISATION if getattr(config, name) != getattr(original, name)]
    return f"its input is normalised with another {', '.join(other)}" if other else None


def _other_network(config: ModelConfig) -> str | None:
    if config.neck != "original" or config.head_bias != config.decoder_bias:
        return "it has another neck or other biases than the original's decoder"
    if config.deformable and not config.modulated:
        return "its deformable convolutions have no masks"
    if config.deformable and LAYOUTS[config.backbone].bottleneck and config.offset_stride == "strided":
        return "its offset convolutions have stride 2, and the original's have stride 1"
    if config.attention != "none" and config.attention_channels != _ATTENTION_CHANNELS:
        return f"its attention has {config.attention_channels} channels, and the original's {_ATTENTION_CHANNELS}"
    return None
