"""What training writes: weights in the original's layout, and the state that a resumed run continues from."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dbcpu.errors import CheckpointError

PREFIX = "model.module."  # original: DataParallel inside a wrapper, even on one device


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a bare OrderedDict of float32 CPU tensors, names prefixed as the original's."""
    saved = OrderedDict((PREFIX + name, tensor.detach().cpu().contiguous()) for name, tensor in tensors.items())
    write_atomically(path, saved)


def write_atomically(path: Path, content: object) -> None:
    """Write with `torch.save` beside `path`, then move into place: a reader or a crash never sees half a file."""
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """Read a resume state that this package wrote."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"cannot read the resume state: {error}", where=path) from None
    return state


class Average:
    """Exponential moving average of a model's weights and statistics; better and steadier than the last step's.

    Args:
        model: the model to follow.
        decay: share of the old average kept at each step; lower at first, so that the start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model's weights after step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        followed = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                average.lerp_(followed[name], 1 - decay)
            else:
                average.copy_(followed[name])
