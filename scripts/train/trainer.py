"""The model, its optimiser, its moving average, and one step of training."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbcpu.checkpoint.load import read_weights
from dbcpu.config import ORIGINAL_MEAN, ModelConfig
from dbcpu.engine.precision import gains_by_bf16, has_bf16_instructions
from dbcpu.errors import UsageError
from dbcpu.model.network import build_model
from scripts.train.checkpoint import Average
from scripts.train.losses import Losses, detection_losses
from scripts.train.stream import TensorBatch

GRADIENT_NORM = 5.0  # longer gradients are shortened to it


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What shapes the optimisation.

    Attributes:
        minutes: of training in all, resumed runs counted together; the learning rate falls to zero over them.
        learning_rate: peak of AdamW's.
        deformable: whether layers 2-4 have deformable convolutions. From random weights their offsets soon reach many
            pixels and gradients through them are noise: train without, then `--start` a deformable run from that.
        threshold_head: whether to train the threshold map too; without, a step takes a fifth less time.
        fixed_norms: whether batch normalisation uses its running statistics, as inference does, and leaves them as they
            are: for going on from trained weights, as those of a few crops of different kinds are noise.
        warm_up: steps until the peak.
        weight_decay: of convolution weights.
        average_decay: of the moving average that is validated and saved.
        seed: of everything random.
    """

    minutes: float
    learning_rate: float = 1e-3
    deformable: bool = False
    threshold_head: bool = True
    fixed_norms: bool = False
    warm_up: int = 100
    weight_decay: float = 1e-4
    average_decay: float = 0.998
    seed: int = 0


class Trainer:
    """The model, its optimiser, its average, and how far they have come."""

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, device
        config = ModelConfig(
            backbone="resnet18", deformable=settings.deformable, threshold_head=settings.threshold_head
        )
        # Elsewhere a step takes up to twelve times as long in bfloat16.
        self.bfloat16 = device.type != "cpu" or gains_by_bf16()
        # A fifth faster on CPUs that are as new as bfloat16, in float32 too, and a fifth slower on older ones.
        recent = device.type != "cpu" or has_bf16_instructions()
        self._layout = torch.channels_last if recent else torch.contiguous_format
        self.model = build_model(config).to(device)
        self.model.to(memory_format=self._layout)  # type: ignore[call-overload]
        norms = [module for module in self.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        self._mean = torch.tensor(ORIGINAL_MEAN, device=device)
        self._fixed_norms = norms if settings.fixed_norms else []
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.model, settings.weight_decay), lr=0.0)
        self.average = Average(self.model, settings.average_decay)
        self.rng = np.random.default_rng(settings.seed)
        self.step = 0
        self.minutes = 0.0  # spent training, over all runs
        self.best = -1.0

    def start_from(self, weights: Path) -> list[str]:
        """Take over the tensors of any weights that fit; return the names of those that stay random."""
        own = self.model.state_dict()
        tensors = match_offsets(read_weights(weights).tensors, own)
        fitting = {name: t for name, t in tensors.items() if name in own and own[name].shape == t.shape}
        self.model.load_state_dict(fitting, strict=False)
        self.average = Average(self.model, self.settings.average_decay)
        counters = {name for name in own if name.endswith("num_batches_tracked")}  # never used, seldom stored
        return sorted(set(own) - set(fitting) - counters)

    def learning_rate(self) -> float:
        """Return the rate of the next step: a linear rise by steps, then half a cosine by time."""
        progress = min(self.minutes / self.settings.minutes, 1.0)
        rise = min((self.step + 1) / self.settings.warm_up, 1.0)
        return self.settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * progress))

    def train_step(self, batch: TensorBatch) -> Losses:
        """Descend one step on a batch; the losses are those before it."""
        crops, *maps = (tensor.to(self.device, non_blocking=True).float() for tensor in batch)
        x = ((crops - self._mean) / 255).permute(0, 3, 1, 2).contiguous(memory_format=self._layout)
        self.model.train()
        for norm in self._fixed_norms:
            norm.eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            if self.settings.threshold_head:
                probability, threshold = (m[:, 0] for m in self.model.forward_training(x))
            else:
                probability, threshold = self.model(x)[:, 0], None
        losses = detection_losses(probability, threshold, *maps)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["rate_factor"]
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1
        return losses

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "minutes": self.minutes,
            "best": self.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned.

        Raises:
            UsageError: it is the state of a network of another shape.
        """
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            remedy = "give --deformable and --no-threshold-head as when the run began"
            raise UsageError("the state to resume from is of another network", remedy=remedy) from None
        self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.minutes, self.best = state["step"], state["minutes"], state["best"]


def match_offsets(tensors: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Return tensors for a network with deformable convolutions from one without, or the other way round.

    Offsets start at zero and mask logits too, which halves what a plain convolution would give: exact where the plain
    network comes first, and where a deformable one has such offsets.

    Args:
        tensors: of the network to start from.
        own: names of the network to start.
    """
    matched = {}
    for name, tensor in tensors.items():
        offset = name.replace("conv2.weight", "conv2_offset.weight")
        factor = 1.0 if offset == name else (1 + (offset in own)) / (1 + (offset in tensors))
        matched[name] = tensor.float() * factor if tensor.is_floating_point() else tensor
    return matched


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Offsets learn ten times slower, as sampling far away early ruins them; biases and norms are not decayed."""
    groups: dict[str, list[torch.nn.Parameter]] = {"offsets": [], "weights": [], "others": []}
    for name, parameter in model.named_parameters():
        kind = "offsets" if "conv2_offset" in name else "weights" if parameter.ndim > 1 else "others"
        groups[kind].append(parameter)
    return [
        {"params": groups["weights"], "weight_decay": weight_decay, "rate_factor": 1.0},
        {"params": groups["others"], "weight_decay": 0.0, "rate_factor": 1.0},
        {"params": groups["offsets"], "weight_decay": 0.0, "rate_factor": 0.1},
    ]
