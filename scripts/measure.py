"""Print the figures of the README's "Speed and size" section: start-up, one picture's time and peak memory.

    python scripts/measure.py

Weights are made at random: the figures do not depend on them. Linux only, for the peak memory.
"""

from __future__ import annotations

import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dbcpu.engine.threads import available_cpus

RUNS = 5
PICTURE = """
import resource, statistics, sys, time
import numpy as np
from dbcpu import load_detector
started = time.perf_counter()
detector = load_detector(sys.argv[1], size=(736, 1280), threads=int(sys.argv[2]))
loaded = time.perf_counter() - started
page = np.random.default_rng(0).integers(0, 256, (736, 1280, 3), dtype=np.uint8)
times = []
for _ in range(int(sys.argv[3])):
    started = time.perf_counter()
    detector.detect(page)
    times.append(time.perf_counter() - started)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{loaded * 1000:.0f} {statistics.median(times) * 1000:.0f} {peak:.0f}")
"""
SAVE = """
import sys, torch
from dbcpu.config import ModelConfig
from dbcpu.model.network import build_model
torch.manual_seed(0)
torch.save(build_model(ModelConfig(backbone="resnet18", deformable=True)).state_dict(), sys.argv[1])
"""


def main() -> None:
    print(f"{processor()}, {available_cpus()} cores, Python {platform.python_version()}")
    help_times = [seconds([sys.executable, "-m", "dbcpu", "--help"]) for _ in range(RUNS)]
    print(f"dbcpu --help: {statistics.median(help_times):.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "final"
        run([sys.executable, "-c", SAVE, str(weights)])
        out = run([sys.executable, "-c", PICTURE, str(weights), str(available_cpus()), str(RUNS)])
    loaded, picture, peak = out.split()
    print(f"ResNet-18-DCN, float32, 736x1280: {picture} ms a picture, {peak} MiB at the peak, loaded in {loaded} ms")


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    run(command)
    return time.perf_counter() - started


def processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    told = Path("/proc/cpuinfo")  # Linux has it, on Arm without a name
    names = re.findall(r"model name\s*: (.*)", told.read_text(encoding="utf-8")) if told.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
