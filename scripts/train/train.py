"""Train the default model.

    python -m scripts.train.train --real ../shared/data/train --pool POOL --out RUN --minutes 120

RUN receives `last` and `best` (averaged weights in the original's layout: `dbcpu convert` reads them), `state` (what
`--resume` continues from), `log.jsonl` and `curve.png`. SIGTERM and Ctrl-C save before they end the run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from dbcpu.engine.memory import keep_freed_memory
from dbcpu.errors import UsageError
from scripts.train.checkpoint import read_state, write_atomically, write_weights
from scripts.train.command import errors_told
from scripts.train.crops import CropSettings
from scripts.train.curve import draw_curve
from scripts.train.sources import CropReader, Source
from scripts.train.stream import TensorBatch, open_stream
from scripts.train.trainer import Trainer, TrainSettings
from scripts.train.truth import PageFile, list_pages
from scripts.train.validate import validate

# Of real crops. Receipts vary more than their number tells; nine vertical pages are soon learnt by heart.
REAL_SHARES = {"sroie": 0.43, "tapuscorpus": 0.38, "ndl_docl": 0.19}
LOG_EVERY = 20  # steps


class Run:
    """One training run: the loop, its files, its validation."""

    def __init__(
        self,
        trainer: Trainer,
        batches: Iterator[TensorBatch],
        crop: CropSettings,
        validation: dict[str, list[PageFile]],
        out: Path,
    ) -> None:
        self.trainer, self.batches, self.crop, self.validation, self.out = trainer, batches, crop, validation, out
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
            losses = trainer.train_step(next(self.batches))
            trainer.minutes += (time.monotonic() - clock) / 60
            if not math.isfinite(losses.total.item()):
                raise UsageError("the loss is not finite", remedy="lower --learning-rate and --resume")
            if trainer.step % LOG_EVERY == 0:
                named = losses._asdict().items()
                self._log({f"loss_{name}": round(loss.item(), 4) for name, loss in named if loss is not None})
            if trainer.minutes >= next_validation:
                self._validate()
                next_validation = trainer.minutes + validate_every
            clock = time.monotonic()  # only steps and their crops count
        if not self.stopped:
            self._validate()
        self._save()
        self.batches = iter(())  # ends the workers, for which the end of the process would wait

    def _validate(self) -> None:
        trainer, crop = self.trainer, self.crop
        scores = {
            name: validate(trainer.average.model, pages, crop.unclip_ratio, crop.short_side, bfloat16=trainer.bfloat16)
            for name, pages in self.validation.items()
            if pages
        }
        mean = sum(score.f for score in scores.values()) / len(scores)
        self._log({f"f_{name}": round(score.f, 4) for name, score in scores.items()} | {"f_mean": round(mean, 4)})
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


@errors_told()
def main() -> None:
    arguments = _parser().parse_args()
    run = _prepare(arguments)
    run.train(arguments.validate_every)


def _parser() -> argparse.ArgumentParser:
    defaults = TrainSettings(minutes=0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder with sroie/, tapuscorpus/, ndl_docl/")
    parser.add_argument("--pool", type=Path, required=True, help="pages of scripts.train.pages; may grow meanwhile")
    parser.add_argument("--real-share", type=float, default=0.31, help="of all crops (default: %(default)s)")
    parser.add_argument("--labelled", type=Path, help="real pictures of scripts.train.labelled (default: none)")
    parser.add_argument("--labelled-share", type=float, default=0.1, help="of all crops (default: %(default)s)")
    parser.add_argument("--pool-validation", type=Path, help="synthetic pages for validation only, another seed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, made if missing")
    parser.add_argument("--start", type=Path, help="old checkpoint or model file to start from; default: random")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all, earlier runs included")
    parser.add_argument("--validate-every", type=float, default=10.0, help="minutes (default: %(default)s)")
    parser.add_argument("--validation-pages", type=int, default=8, help="of each kind, at most (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="crops a step (default: %(default)s)")
    parser.add_argument("--side", type=int, default=320, help="of a crop in pixels (default: %(default)s)")
    sides = "of the crops of other steps, as often, with about as many pixels to a step"
    parser.add_argument("--other-side", type=int, action="append", default=[], metavar="SIDE", help=sides)
    parser.add_argument(
        "--learning-rate", type=float, default=defaults.learning_rate, help="peak (default: %(default)s)"
    )
    parser.add_argument("--deformable", action="store_true", help="with deformable convolutions in layers 2-4")
    parser.add_argument("--no-threshold-head", action="store_true", help="train the probability map alone, faster")
    fixed = "keep the statistics of batch normalisation as they are in --start"
    parser.add_argument("--fixed-norms", action="store_true", help=fixed)
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that cut crops, for a GPU; default: this one")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    return parser


def _prepare(arguments: argparse.Namespace) -> Run:
    labelled_share = arguments.labelled_share if arguments.labelled else 0.0
    pool_share = 1 - arguments.real_share - labelled_share
    if not (arguments.real_share > 0 and min(labelled_share, pool_share) >= 0):
        raise UsageError("no shares of a whole, the first above 0", where="--real-share, --labelled-share")
    keep_freed_memory()  # a third of the time went into fresh pages without it
    torch.backends.cudnn.benchmark = True  # batches are of few shapes
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
            learning_rate=arguments.learning_rate,
            deformable=arguments.deformable,
            threshold_head=not arguments.no_threshold_head,
            fixed_norms=arguments.fixed_norms,
            seed=arguments.seed,
        ),
        device,
    )
    if arguments.resume:
        trainer.load_state(read_state(state_path))
    elif arguments.start:
        print("random:", ", ".join(trainer.start_from(arguments.start)) or "nothing")
    sources = [Source(arguments.real / folder, share * arguments.real_share) for folder, share in REAL_SHARES.items()]
    validation = {source.folder.name: source.held_back() for source in sources}
    if arguments.pool_validation:
        validation["synthetic"] = list_pages(arguments.pool_validation)
    validation = {name: pages[: arguments.validation_pages] for name, pages in validation.items()}
    sources.append(Source(arguments.pool, pool_share, whole=True, growing=True))
    if arguments.labelled:
        sources.append(Source(arguments.labelled, labelled_share, whole=True))
    crop = CropSettings(side=arguments.side, borders=not arguments.no_threshold_head)
    reader = CropReader(sources, crop, trainer.rng, arguments.other_side)
    batches = open_stream(reader, arguments.batch, arguments.workers, pinned=device.type == "cuda")
    run = Run(trainer, batches, crop, validation, out)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, run.stop)
    (out / "pid").write_text(f"{os.getpid()}\n")
    return run


if __name__ == "__main__":
    main()
