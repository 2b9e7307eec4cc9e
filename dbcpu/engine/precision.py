"""What the network computes in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch

from dbcpu.errors import UsageError

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "auto"]


def choose_dtype(precision: Precision) -> torch.dtype:
    """Return what to compute in; "auto" is bfloat16 only where it is known to be faster, and says so.

    Raises:
        UsageError: no such precision.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        if not gains_by_bf16():
            logger.warning("precision bf16: not known to be faster than fp32 on this CPU, and often far slower")
        return torch.bfloat16
    if precision == "auto":
        dtype = torch.bfloat16 if gains_by_bf16() else torch.float32
        logger.warning("precision auto: computing in %s on this CPU", "bf16" if dtype == torch.bfloat16 else "fp32")
        return dtype
    raise UsageError(f"precision must be fp32, bf16 or auto, not {precision!r}")


def gains_by_bf16() -> bool:
    """Whether the CPU is known to compute faster in bfloat16: x86 with AMX, AMD with AVX-512's instructions for it.

    On a Xeon those of AVX-512 alone take 1.7 to 1.9 times as long as float32, on a Zen 4 0.6 times. Nobody has
    measured Arm's.
    """
    cpu = _describe_cpu()
    amd = str(cpu.get("cpu_name")).startswith("AMD")
    return bool(cpu.get("amx_tile") or (amd and cpu.get("avx512_bf16")))


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bfloat16 by itself, fast or not; elsewhere it is emulated."""
    cpu = _describe_cpu()
    return bool(cpu.get("avx512_bf16") or cpu.get("bf16"))  # x86, Arm


def _describe_cpu() -> Mapping[str, Any]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # old torch cannot tell
