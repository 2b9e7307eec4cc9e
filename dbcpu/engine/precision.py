"""What the network computes in."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from dbcpu.errors import UsageError

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "auto"]


def choose_dtype(precision: Precision) -> torch.dtype:
    """Return what to compute in; "auto" is bfloat16 only where it is faster than float32, and says so.

    Raises:
        UsageError: no such precision.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        if not gains_by_bf16():
            logger.warning("precision bf16: this CPU lacks the instructions that it gains by, and fp32 would be faster")
        return torch.bfloat16
    if precision == "auto":
        dtype = torch.bfloat16 if gains_by_bf16() else torch.float32
        logger.warning("precision auto: computing in %s on this CPU", "bf16" if dtype == torch.bfloat16 else "fp32")
        return dtype
    raise UsageError(f"precision must be fp32, bf16 or auto, not {precision!r}")


def gains_by_bf16() -> bool:
    """Whether the CPU computes faster in bfloat16: x86 with AMX, Arm with its instructions for it.

    Those of AVX-512 are not enough: with them alone the network takes 1.7 to 1.9 times as long as in float32.
    """
    return _supports("_is_amx_tile_supported", "_is_arm_bf16_supported")


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bfloat16 by itself, fast or not; elsewhere it is emulated."""
    return gains_by_bf16() or _supports("_is_avx512_bf16_supported")


def _supports(*checks: str) -> bool:
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))
