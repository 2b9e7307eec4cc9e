"""Operators that torch lacks."""

from __future__ import annotations

from dbcpu.ops.deform_conv import DeformConv2d, deform_conv2d

__all__ = ["DeformConv2d", "deform_conv2d"]
