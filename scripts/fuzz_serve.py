"""Try requests of every kind that the OpenAPI document allows, and many that it forbids, with schemathesis.

    python -m scripts.fuzz_serve [options of `schemathesis run`]

The server takes small inputs of the network only, so that a run takes a few minutes. Needs the extra `dev`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.local_server import local_server

ROOT = Path(__file__).parents[1]  # where schemathesis.toml is
LIMITS = ("--short-side", 64, "--max-network-pixels", 0.1, "--max-body", 4)


def main(options: list[str]) -> int:
    """Run schemathesis, and return its exit code."""
    schemathesis = Path(sys.executable).with_name("schemathesis")
    with local_server(*LIMITS) as (url, _):
        return subprocess.run([schemathesis, "run", f"{url}openapi.json", *options], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
