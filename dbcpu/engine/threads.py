"""How many threads to use: what this process may use of the machine, not what the machine has."""

from __future__ import annotations

import math
import os
from numbers import Integral
from pathlib import Path

from dbcpu.errors import UsageError

_MOST_THREADS = 1024  # far above what helps, and below what the system refuses in its own ways
_CGROUPS = Path("/sys/fs/cgroup")


def available_cpus(*, membership: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> int:
    """Return the CPUs that this process may keep busy: its affinity, and the quota of the container it runs in.

    Args:
        membership: the file that says which control groups the process is in, on Linux.
        root: where control groups are mounted.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(membership, root)
    return max(1, min(affinity, affinity if quota is None else math.ceil(quota)))


def _quota(membership: Path, root: Path) -> float | None:
    """Return the smallest CPU quota of the process' control groups, or None where there is none."""
    quotas = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            group = root / path.lstrip("/")
            quotas += [
                _quota_2(folder / "cpu.max") for folder in (group, *group.parents) if root in (folder, *folder.parents)
            ]
        elif "cpu" in controllers.split(","):
            # Inside a container the path is the host's, while the mount shows the container's own group at its root.
            quotas += [_quota_1(root / "cpu" / path.lstrip("/")), _quota_1(root / "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_2(file: Path) -> float | None:
    try:
        quota, period = file.read_text(encoding="utf-8").split()
        return float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


def _quota_1(folder: Path) -> float | None:
    try:
        quota = float((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        return quota / float((folder / "cpu.cfs_period_us").read_text(encoding="utf-8")) if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def set_threads(threads: int) -> None:
    """Set how many threads torch and OpenCV use, in the whole process.

    Raises:
        UsageError: no whole number from 1 to 1024.
    """
    if not isinstance(threads, Integral) or not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads must be a whole number from 1 to {_MOST_THREADS}, not {threads!r}")
    import cv2  # here, since a server asks for CPUs without either of them
    import torch

    torch.set_num_threads(int(threads))
    cv2.setNumThreads(int(threads))
