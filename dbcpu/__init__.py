"""Differentiable Binarization text detection on a CPU, from checkpoints of the original CUDA code.

`load_detector` is the way in; everything else it needs comes along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbcpu.detector import Detector, load_detector
    from dbcpu.errors import DbcpuError
    from dbcpu.geometry import Size
    from dbcpu.result import DetectionResult, TextInstance

__version__ = "0.1.0"
__all__ = ["DbcpuError", "DetectionResult", "Detector", "Size", "TextInstance", "__version__", "load_detector"]

_HOME = {
    "DbcpuError": "dbcpu.errors",
    "DetectionResult": "dbcpu.result",
    "Detector": "dbcpu.detector",
    "Size": "dbcpu.geometry",
    "TextInstance": "dbcpu.result",
    "load_detector": "dbcpu.detector",
}


def __getattr__(name: str) -> object:
    # Public names are imported when first used, so that `dbcpu --help` pays for neither torch nor OpenCV.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
