"""What the network computes in."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from dbcpu.errors import UsageError

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "auto"]


def choose_dtype(precision: Precision) -> torch.dtype:
    """Return what to compute in; "auto" is bfloat16 only where the CPU has instructions for it, and says so.

    Raises:
        UsageError: no such precision.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        if not has_bf16_instructions():
            logger.warning("precision bf16: this CPU has no instructions for it, and fp32 would be faster")
        return torch.bfloat16
    if precision == "auto":
        dtype = torch.bfloat16 if has_bf16_instructions() else torch.float32
        logger.warning("precision auto: computing in %s on this CPU", "bf16" if dtype == torch.bfloat16 else "fp32")
        return dtype
    raise UsageError(f"precision must be fp32, bf16 or auto, not {precision!r}")


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bfloat16 by itself; elsewhere it is emulated, and slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))
