"""Export every kind of network for both runtimes, and print how far their maps are from torch's at two sizes.

    python -m scripts.check_exports

Ends with exit code 1 where a difference is above 1e-4.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from dbcpu.export.program import LARGEST_DIFFERENCE
from scripts.bench import prepare_weights
from scripts.contenders import CONTENDERS, Job

# ResNet-18 and -50, deformable, both meanings of the stride-2 blocks, and the attentions of DB++.
VARIANTS = (
    "deformable_resnet18",
    "deformable_resnet50",
    "deformable_resnet50_strided",
    "deformable_resnet50_asf",
    "deformable_resnet50_asf_spatial",
    "deformable_resnet50_asf_spatial_strided",
)
SIZES = ((256, 416), (448, 320))


def main() -> int:
    random = np.random.default_rng(0)
    largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for weights in prepare_weights(Path(folder), [], VARIANTS):
            for height, width in SIZES:
                job = Job(weights, height, width, "fp32", 2)
                batch = (random.random((1, 3, height, width)) - 0.5).astype(np.float32)
                expected = CONTENDERS["plain"](job)(batch)
                for runtime in ("ONNX Runtime", "OpenVINO"):
                    difference = float(np.abs(CONTENDERS[runtime](job)(batch) - expected).max())
                    print(f"{weights.name:40} {width}x{height} {runtime:12} {difference:.1e}", flush=True)
                    largest = max(largest, difference)
    return int(not largest <= LARGEST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
