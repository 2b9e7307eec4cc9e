"""Time the deformable convolution beside the dense one, and torchvision's where that can be imported.

    python scripts/bench_operator.py [--threads N] [--rounds N] [--dtype float32|bfloat16] [--training]

One image of each plane of the backbone at short side 736, 3x3, offsets as wide as a standard normal. All run by turns
in one process; the numbers are medians, the ratio is that of the medians. Dense is the faster of channels-last and
contiguous. Extra memory is the peak of what an inference call allocates beside its output.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dbcpu.ops import deform_conv2d

try:
    from torchvision.ops import deform_conv2d as torchvision_deform_conv2d
except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
    torchvision_deform_conv2d = None
    print(f"without torchvision: {error}")

if TYPE_CHECKING:
    from collections.abc import Callable

PLANES = ((1, 128, 92), (1, 256, 46), (1, 512, 23))
TRAINING_PLANES = ((8, 128, 40), (8, 256, 20), (8, 512, 10))
HEADER = "  images channels      plane |   dense    ours   ratio  torchvision | extra MiB: dense   ours"


class Layer(NamedTuple):
    """The tensors of one layer; the input and the weight are channels-last."""

    images: Tensor
    offset: Tensor
    mask: Tensor
    weight: Tensor


def dense(layer: Layer) -> Tensor:
    return F.conv2d(layer.images, layer.weight, padding=1)


def ours(layer: Layer) -> Tensor:
    return deform_conv2d(layer.images, layer.offset, layer.weight, padding=1, mask=layer.mask)


def torchvisions(layer: Layer) -> Tensor:
    output: Tensor = torchvision_deform_conv2d(layer.images, layer.offset, layer.weight, padding=1, mask=layer.mask)
    return output


def in_contiguous_memory(layer: Layer) -> Layer:
    return Layer(*(tensor.detach().contiguous().requires_grad_(tensor.requires_grad) for tensor in layer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--training", action="store_true", help="forward and backward; bfloat16 by autocast")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    kind = "forward and backward" if arguments.training else "inference"
    print(f"{kind}, {arguments.dtype}, {arguments.threads} threads, ms\n{HEADER}")
    for plane in TRAINING_PLANES if arguments.training else PLANES:
        print(compare(plane, dtype, training=arguments.training, rounds=arguments.rounds), flush=True)


def make_layer(plane: tuple[int, int, int], dtype: torch.dtype, *, training: bool) -> Layer:
    images, channels, side = plane
    stored = torch.float32 if training else dtype
    offsets = torch.randn(images, 27, side, side).contiguous(memory_format=torch.channels_last)
    tensors = (
        torch.randn(images, channels, side, side, dtype=stored).contiguous(memory_format=torch.channels_last),
        offsets[:, :18],
        offsets[:, 18:].sigmoid(),
        torch.randn(channels, channels, 3, 3, dtype=stored).contiguous(memory_format=torch.channels_last),
    )
    return Layer(*(tensor.requires_grad_(training) for tensor in tensors))


def compare(plane: tuple[int, int, int], dtype: torch.dtype, *, training: bool, rounds: int) -> str:
    layer = make_layer(plane, dtype, training=training)
    contiguous = in_contiguous_memory(layer)
    calls = {"dense": partial(dense, layer), "contiguous": partial(dense, contiguous), "ours": partial(ours, layer)}
    if torchvision_deform_conv2d is not None and dtype == torch.float32:
        calls["torchvision"] = partial(torchvisions, contiguous)
    steps: dict[str, Callable[[], object]] = {
        name: training_step(call, dtype) if training else torch.inference_mode()(call) for name, call in calls.items()
    }
    times = take_turns(steps, rounds)
    fastest = min(times["dense"], times["contiguous"])
    theirs = f"{times['torchvision']:11.1f}" if "torchvision" in times else "          -"
    row = f"{plane[0]:8} {plane[1]:8} {f'{plane[2]}x{plane[2]}':>10} | {fastest:7.1f} {times['ours']:7.1f}"
    row += f" {times['ours'] / fastest:7.2f}  {theirs} |"
    return row if training else f"{row}      {extra_memory(calls['dense']):10.1f} {extra_memory(calls['ours']):6.1f}"


def training_step(call: Callable[[], Tensor], dtype: torch.dtype) -> Callable[[], None]:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = call()
        output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]

    return step


def take_turns(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each in ms, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def extra_memory(call: Callable[[], Tensor]) -> float:
    """Return the peak in MiB of what a call allocates beside its output."""
    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
        output = call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(max(itertools.accumulate(changes)) - output.nbytes) / (1 << 20)


if __name__ == "__main__":
    main()
