"""Train the default model.

    python -m scripts.train.train --real ../shared/data/train --pool POOL --out RUN --minutes 120

RUN receives `last` and `best` (averaged weights in the original's layout: `dbcpu convert` reads them), `state` (what
`--resume` continues from), `log.jsonl` and `curve.png`. SIGTERM and Ctrl-C save before they end the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbcpu.checkpoint.load import read_weights
from dbcpu.config import ModelConfig
from dbcpu.errors import DbcpuError, UsageError
from dbcpu.model.network import build_model
from scripts.train.checkpoint import Average, read_state, write_atomically, write_weights
from scripts.train.crops import CropSettings, network_input
from scripts.train.curve import draw_curve
from scripts.train.losses import Losses, detection_losses
from scripts.train.sources import CropReader, Source
from scripts.train.truth import PageFile, list_pages
from scripts.train.validate import validate

GRADIENT_NORM = 5.0  # longer gradients are shortened to it
# Receipts vary more than their number tells; nine vertical pages are soon learnt by heart.
REAL_SHARES = {"sroie": 0.24, "tapuscorpus": 0.16, "ndl_docl": 0.12}
POOL_SHARE = 0.48
LOG_EVERY = 20  # steps
REFRESH_EVERY = 200  # steps between looks for new pages


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What shapes the optimisation.

    Attributes:
        minutes: of training in all, resumed runs counted together; the learning rate falls to zero over them.
        batch: crops a step.
        learning_rate: peak of AdamW's.
        deformable: whether layers 2-4 have deformable convolutions. From random weights their offsets soon reach many
            pixels and gradients through them are noise: train without, then `--start` a deformable run from that.
        threshold_head: whether to train the threshold map too; without, a step takes a fifth less time.
        warm_up: steps until the peak.
        weight_decay: of convolution weights.
        average_decay: of the moving average that is validated and saved.
        seed: of everything random.
    """

    minutes: float
    batch: int = 8
    learning_rate: float = 1e-3
    deformable: bool = False
    threshold_head: bool = True
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
        model = build_model(config)
        self.model = model.to(device, memory_format=torch.channels_last)
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

    def train_step(self, reader: CropReader) -> Losses:
        """Descend one step on a fresh batch; the losses are those before it."""
        crops, targets = reader.draw_batch(self.settings.batch)
        x = torch.from_numpy(network_input(crops)).to(self.device, memory_format=torch.channels_last)
        maps = [torch.from_numpy(m).to(self.device) for m in targets]
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            if self.settings.threshold_head:
                probability, threshold = (m[:, 0] for m in self.model.forward_training(x))
            else:
                probability, threshold = self.model(x)[:, 0], None
        losses = detection_losses(probability, threshold, *maps)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
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


class Run:
    """One training run: the loop, its files, its validation."""

    def __init__(self, trainer: Trainer, reader: CropReader, validation: dict[str, list[PageFile]], out: Path) -> None:
        self.trainer, self.reader, self.validation, self.out = trainer, reader, validation, out
        self.stopped = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: end after the step in hand."""
        del number, frame
        self.stopped = True

    def train(self, validate_every: float) -> None:
        """Train until the minutes are spent or a signal comes; validate every so many minutes, and at the end."""
        trainer = self.trainer
        next_validation = trainer.minutes + validate_every
        clock = time.monotonic()
        while trainer.minutes < trainer.settings.minutes and not self.stopped:
            losses = trainer.train_step(self.reader)
            trainer.minutes += (time.monotonic() - clock) / 60
            clock = time.monotonic()
            if not math.isfinite(losses.total.item()):
                raise UsageError("the loss is not finite", remedy="lower --learning-rate and --resume")
            if trainer.step % LOG_EVERY == 0:
                self._log({f"loss_{k}": round(v.item(), 4) for k, v in losses._asdict().items()})
            if trainer.step % REFRESH_EVERY == 0:
                self.reader.refresh()
            if trainer.minutes >= next_validation:
                self._validate()
                next_validation = trainer.minutes + validate_every
        if not self.stopped:
            self._validate()
        self._save()

    def _validate(self) -> None:
        trainer, crop = self.trainer, self.reader.settings
        scores = {
            name: validate(trainer.average.model, pages, crop.unclip_ratio, crop.short_side, bfloat16=True)
            for name, pages in self.validation.items()
            if pages
        }
        mean = sum(score.f_measure for score in scores.values()) / len(scores)
        self._log(
            {f"f_{name}": round(score.f_measure, 4) for name, score in scores.items()} | {"f_mean": round(mean, 4)}
        )
        if mean > trainer.best:
            trainer.best = mean
            write_weights(self.out / "best", trainer.average.model.state_dict())
        self._save()

    def _save(self) -> None:
        write_weights(self.out / "last", self.trainer.average.model.state_dict())
        write_atomically(self.out / "state", self.trainer.state())
        draw_curve(self.out / "log.jsonl", self.out / "curve.png")

    def _log(self, values: dict[str, float]) -> None:
        trainer = self.trainer
        row = {"step": trainer.step, "minutes": round(trainer.minutes, 2), "rate": trainer.learning_rate()} | values
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{key} {value:.6g}" for key, value in row.items()), flush=True)


def main() -> None:
    arguments = _parser().parse_args()
    try:
        run = _prepare(arguments)
        run.train(arguments.validate_every)
    except DbcpuError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _parser() -> argparse.ArgumentParser:
    defaults = TrainSettings(minutes=0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder with sroie/, tapuscorpus/, ndl_docl/")
    parser.add_argument("--pool", type=Path, required=True, help="pages of scripts.train.pages; may grow meanwhile")
    parser.add_argument("--pool-validation", type=Path, help="synthetic pages for validation only, another seed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, made if missing")
    parser.add_argument("--start", type=Path, help="old checkpoint or model file to start from; default: random")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all, earlier runs included")
    parser.add_argument("--validate-every", type=float, default=10.0, help="minutes (default: %(default)s)")
    parser.add_argument("--validation-pages", type=int, default=8, help="of each kind, at most (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="crops a step (default: %(default)s)")
    parser.add_argument("--side", type=int, default=320, help="of a crop in pixels (default: %(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=defaults.learning_rate, help="peak (default: %(default)s)"
    )
    parser.add_argument("--deformable", action="store_true", help="with deformable convolutions in layers 2-4")
    parser.add_argument("--no-threshold-head", action="store_true", help="train the probability map alone, faster")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    return parser


def _prepare(arguments: argparse.Namespace) -> Run:
    out: Path = arguments.out
    state_path = out / "state"
    if state_path.exists() and not arguments.resume:
        raise UsageError("holds a run already", where=out, remedy="--resume continues it")
    out.mkdir(parents=True, exist_ok=True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    name = arguments.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    trainer = Trainer(
        TrainSettings(
            minutes=arguments.minutes,
            batch=arguments.batch,
            learning_rate=arguments.learning_rate,
            deformable=arguments.deformable,
            threshold_head=not arguments.no_threshold_head,
            seed=arguments.seed,
        ),
        device,
    )
    if arguments.resume:
        trainer.load_state(read_state(state_path))
    elif arguments.start:
        print("random:", ", ".join(trainer.start_from(arguments.start)) or "nothing")
    sources = [Source(arguments.real / folder, share) for folder, share in REAL_SHARES.items()]
    validation = {source.folder.name: source.held_back() for source in sources}
    if arguments.pool_validation:
        validation["synthetic"] = list_pages(arguments.pool_validation)
    validation = {name: pages[: arguments.validation_pages] for name, pages in validation.items()}
    sources.append(Source(arguments.pool, POOL_SHARE, growing=True))
    reader = CropReader(sources, CropSettings(side=arguments.side), trainer.rng)
    run = Run(trainer, reader, validation, out)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, run.stop)
    (out / "pid").write_text(f"{os.getpid()}\n")
    return run


if __name__ == "__main__":
    main()
