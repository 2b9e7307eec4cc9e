"""The network through `torch.compile`: for long runs, and only where a C++ compiler is installed."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, cast

import torch

from dbcpu.engine.head import Tail
from dbcpu.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


def compile_network(network: nn.Module) -> nn.Module:
    """Return the network compiled for inputs of any size; the first two sizes take a minute each, the others no time.

    Raises:
        UsageError: nothing can be compiled here.
    """
    started = time.perf_counter()
    try:
        # What can be missing is found only by compiling something: the compiler, Python's headers, a folder to write.
        with torch.inference_mode():
            torch.compile(lambda x: x.relu() + 1)(torch.zeros(16))
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
        raise UsageError(
            f"--compile: torch.compile does not work here ({reason})",
            remedy="install a C++ compiler such as g++, or leave --compile out: it only changes the speed",
        ) from error
    logger.info("torch.compile works: %d ms for a trial", round((time.perf_counter() - started) * 1000))
    for module in network.modules():
        if isinstance(module, Tail):  # a loop whose length is that of the picture
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
    return cast("nn.Module", torch.compile(network, dynamic=True))
