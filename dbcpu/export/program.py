"""What all formats share: the traced network, and the comparison of what a runtime makes of it with torch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch.export import Dim

from dbcpu.config import NETWORK_MULTIPLE
from dbcpu.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch.export import ExportedProgram

    from dbcpu.model.network import Network

INPUT, OUTPUT = "input", "probability_map"
AXES = {0: "batch", 2: "height", 3: "width"}  # those of any length, of both the input and the output
LARGEST_DIFFERENCE = 1e-4
_CHECKED_SHAPES = ((1, 3, 64, 96), (2, 3, 128, 64))
_LARGEST_SIDE = 1 << 16


def trace_network(network: Network) -> ExportedProgram:
    """Trace a network for batches of any length and sides of any multiple of 32.

    Args:
        network: in evaluation mode, without gradients.
    """
    height, width = (Dim(AXES[axis], min=2, max=_LARGEST_SIDE // NETWORK_MULTIPLE) for axis in (2, 3))
    shapes = {0: Dim(AXES[0]), 2: NETWORK_MULTIPLE * height, 3: NETWORK_MULTIPLE * width}
    # A length of 1 would be taken for a constant.
    example = torch.zeros(2, 3, 2 * NETWORK_MULTIPLE, 3 * NETWORK_MULTIPLE)
    return torch.export.export(network, (example,), dynamic_shapes=(shapes,))


def compare_with_torch(
    run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]], network: Network, *, where: Path
) -> float:
    """Return the largest difference of a runtime's probability maps from torch's, over batches of several shapes.

    Args:
        run: takes and returns what `Network.forward` does.
        network: in evaluation mode.
        where: the file, for messages.

    Raises:
        OutputError: the difference is above `LARGEST_DIFFERENCE`, or not a number.
    """
    random = torch.Generator().manual_seed(0)
    largest = 0.0
    for shape in _CHECKED_SHAPES:
        batch = torch.rand(shape, generator=random) - 0.5
        with torch.inference_mode():
            expected = network(batch)
        difference = float((torch.from_numpy(run(batch.numpy())) - expected).abs().max())
        if not difference <= LARGEST_DIFFERENCE:
            raise OutputError(f"not written, since its maps differ from torch's by {difference:.2g}", where=where)
        largest = max(largest, difference)
    return largest


def require_packages(extra: str, packages: tuple[str, ...]) -> None:
    """Refuse to go on where packages of an extra are not installed.

    Raises:
        UsageError: naming them, and how to install them.
    """
    if missing := [name for name in packages if not importlib.util.find_spec(name)]:
        raise UsageError(f"this format needs {', '.join(missing)}", remedy=f"pip install 'dbcpu[{extra}]'")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what exporters say about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
