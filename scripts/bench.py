"""Time dbcpu's network beside every peer that is installed, on the same weights.

    python -m scripts.bench [--size WxH ...] [--precision fp32|bf16 ...] [--threads N] [--rounds N] [--json FILE]
                            [--cpu-time]

Peers: the plain network as it is, with a naive pure-torch operator, and with torchvision's; ONNX Runtime and OpenVINO
on what `dbcpu export` writes. In bf16: the plain network under autocast, and OpenVINO with the hint. `pip install
'dbcpu[bench]'` brings those that are packages.

By turns in one process: ours, a peer, ours, the peer, ...; the numbers are medians, and the ratio is that of the
medians. On a busy machine, --threads 1 --cpu-time counts the process' CPU time instead. GFLOP/s are of the plain
network's arithmetic, whatever a contender makes of it; their share is that of a large channels-last convolution timed
in the same run. Memory is the peak of a process of its own, in which the contender loads and runs twice. The largest
difference is that of the probability maps. Weights are drawn where none are given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.contenders import CONTENDERS, OURS, Job
from scripts.measure import processor

if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]

ROOT = Path(__file__).parents[1]
PEERS = {"fp32": tuple(name for name in CONTENDERS if name != OURS), "bf16": ("OpenVINO", "plain")}
DRAWN = ("deformable_resnet18", "deformable_resnet50")
SIZES = ("736x736", "1280x736")
SECONDS = 40.0  # for all rounds with one peer
FEWEST_ROUNDS = 3
HEADER = (
    "network              size      precision peer         |  ours ms   peer ms  ratio | GFLOP/s ours  peer"
    " | share ours peer | MiB ours  peer | largest diff"
)


@dataclass(frozen=True)
class Pair:
    """What was measured of us and one peer; milliseconds are medians, memory is in MiB."""

    network: str
    size: str
    precision: str
    peer: str
    rounds: int
    ours_ms: float
    peer_ms: float
    ratio: float
    gflop: float
    peak_gflop_per_s: float
    ours_mib: float | None
    peer_mib: float | None
    largest_difference: float

    def line(self) -> str:
        """Return a row of the table."""
        rates = [self.gflop / milliseconds * 1e3 for milliseconds in (self.ours_ms, self.peer_ms)]
        shares = [rate / self.peak_gflop_per_s for rate in rates]
        memory = [f"{mib:5.0f}" if mib else "    -" for mib in (self.ours_mib, self.peer_mib)]
        return (
            f"{self.network:20} {self.size:9} {self.precision:9} {self.peer:12}"
            f" | {self.ours_ms:8.1f} {self.peer_ms:9.1f} {self.ratio:6.2f}"
            f" | {rates[0]:12.0f} {rates[1]:5.0f} | {shares[0]:10.2f} {shares[1]:4.2f}"
            f" |    {memory[0]} {memory[1]} | {self.largest_difference:.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, action="append", default=[], help="a checkpoint or a model file")
    parser.add_argument("--drawn", choices=DRAWN, nargs="+", default=DRAWN, help="networks, where there are no weights")
    parser.add_argument("--size", metavar="WxH", nargs="+", default=SIZES)
    parser.add_argument("--precision", choices=PEERS, nargs="+", default=tuple(PEERS))
    parser.add_argument("--peer", choices=PEERS["fp32"], nargs="+", default=PEERS["fp32"])
    parser.add_argument("--threads", type=int, help="of each contender [default: the CPUs this process may use]")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time, of all threads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go too")
    parser.add_argument("--memory-of", nargs=2, metavar=("CONTENDER", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_memory_here(arguments.memory_of[0], Job(**json.loads(arguments.memory_of[1]))))
        return
    from dbcpu.engine.threads import available_cpus

    threads = arguments.threads or available_cpus()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory() as name:
        for weights in prepare_weights(Path(name), arguments.weights, arguments.drawn):
            for size in arguments.size:
                for precision in arguments.precision:
                    width, height = map(int, size.split("x"))
                    job = Job(weights, height, width, precision, threads)
                    peers = [peer for peer in PEERS[precision] if peer in arguments.peer]
                    pairs += measure(job, peers, arguments.rounds, clock)
                    if arguments.json:
                        arguments.json.write_text(json.dumps(document(pairs, threads, clock), indent=1) + "\n")


def document(pairs: list[Pair], threads: int, clock: Clock) -> dict[str, Any]:
    import torch

    return {
        "machine": {"cpu": processor(), "cpus": os.cpu_count(), "threads": threads, "torch": torch.__version__},
        "clock": clock.__name__,
        "pairs": [asdict(pair) for pair in pairs],
    }


def prepare_weights(folder: Path, given: list[Path], drawn: tuple[str, ...]) -> list[Path]:
    """Put the checkpoints into `folder`, and what `dbcpu export` makes of them beside them."""
    sources = {path.resolve().stem: path.resolve() for path in given}
    if not given:
        synthetic = ROOT / "tests" / "data" / "golden" / "synthetic.py"
        for name in drawn:
            sources[name] = folder / f"{name}.drawn"
            subprocess.run([sys.executable, synthetic, "checkpoint", name, sources[name]], check=True)
    for name, source in sources.items():
        (folder / name).symlink_to(source)
        for runtime in ("onnx", "openvino"):
            subprocess.run(
                [sys.executable, "-m", "dbcpu", "export", folder / name, "--to", runtime], cwd=ROOT, check=False
            )
    return [folder / name for name in sources]


def measure(job: Job, peers: list[str], rounds: int, clock: Clock) -> list[Pair]:
    """Time us beside each of `peers` that can be loaded, and print a line each."""
    batch = (np.random.default_rng(0).random((1, 3, job.height, job.width)) - 0.5).astype(np.float32)
    ours, our_memory = CONTENDERS[OURS](job), peak_memory(OURS, job)
    gflop, peak = arithmetic(job) / 1e9, convolution_peak(job, clock)
    print(f"\nconvolution peak in {job.precision}: {peak:.0f} GFLOP/s\n{HEADER}")
    pairs = []
    for peer in peers:
        try:
            theirs = CONTENDERS[peer](job)
            difference = float(np.abs(ours(batch) - theirs(batch)).max())
        except Exception as error:  # whatever keeps a peer from running here
            print(f"without {peer}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        times = by_turns([partial(ours, batch), partial(theirs, batch)], rounds, clock)
        our_ms, peer_ms = (statistics.median(one) * 1e3 for one in times)
        pair = Pair(
            network=job.weights.name,
            size=f"{job.width}x{job.height}",
            precision=job.precision,
            peer=peer,
            rounds=len(times[0]),
            ours_ms=our_ms,
            peer_ms=peer_ms,
            ratio=our_ms / peer_ms,
            gflop=gflop,
            peak_gflop_per_s=peak,
            ours_mib=our_memory,
            peer_mib=peak_memory(peer, job),
            largest_difference=difference,
        )
        print(pair.line(), flush=True)
        pairs.append(pair)
        del theirs
    return pairs


def by_turns(contenders: list[Callable[[], Any]], rounds: int, clock: Clock = time.perf_counter) -> list[list[float]]:
    """Return the seconds that each took in each round; slow ones get fewer rounds than `rounds`."""
    times: list[list[float]] = [[] for _ in contenders]
    started = time.perf_counter()
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() - started > SECONDS:
            break
        for contender, seconds in zip(contenders, times, strict=True):
            before = clock()
            contender()
            seconds.append(clock() - before)
    return times


def arithmetic(job: Job) -> int:
    """Return the floating point operations of the plain network, two for each multiplication and addition."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dbcpu.checkpoint.load import read_weights
    from dbcpu.model.network import build_model

    def of_deform_conv(*shapes: Any, out_shape: Any, **_: Any) -> int:
        return int(2 * np.prod(out_shape) * np.prod(shapes[2][1:]))

    with torch.device("meta"):
        network = build_model(read_weights(job.weights).config.model).eval()
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.dbcpu.deform_conv2d: of_deform_conv})
        with counter, torch.inference_mode():
            network(torch.empty(1, 3, job.height, job.width))
    return int(counter.get_total_flops())


def convolution_peak(job: Job, clock: Clock) -> float:
    """Return the GFLOP/s of a large 3x3 convolution in channels-last, the best of some runs."""
    import torch
    from torch.nn import functional as F

    dtype = torch.float32 if job.precision == "fp32" else torch.bfloat16
    shapes = {"x": (1, 256, 96, 96), "weight": (256, 256, 3, 3)}
    x, weight = (torch.rand(shape).to(dtype, memory_format=torch.channels_last) for shape in shapes.values())
    with torch.inference_mode():
        (seconds,) = by_turns([lambda: F.conv2d(x, weight, padding=1)], 20, clock)
    return 2 * 96 * 96 * 256 * 256 * 9 / min(seconds) / 1e9


def peak_memory(contender: str, job: Job) -> float | None:
    """Return the peak resident memory, MiB, of a process in which a contender runs; None where there is no telling."""
    described = json.dumps(asdict(job) | {"weights": str(job.weights)})
    command = [sys.executable, "-m", "scripts.bench", "--memory-of", contender, described]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return float(done.stdout) if done.returncode == 0 else None


def peak_memory_here(contender: str, job: Job) -> float:
    run = CONTENDERS[contender](Job(**asdict(job) | {"weights": Path(job.weights)}))
    batch = np.zeros((1, 3, job.height, job.width), np.float32)
    run(batch)
    run(batch)
    # Not getrusage, which counts what the process that started this one had.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


if __name__ == "__main__":
    main()
