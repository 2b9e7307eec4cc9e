"""Run a batch from and into an object store with thousands of objects: S3 as moto serves it, on a loopback address.

    python -m scripts.object_store_check ../shared/data/test --pages 2000

The same pages go through a folder and through the store, where a run is killed in the middle and begun again. The
results are compared byte for byte, then a run that has nothing to do is timed.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers import files_in, without_times
from tests.object_store import BUCKET, OWN_FIELDS, objects, served_bucket


def run(source: str, results: str, *options: str, kill_after: float | None = None) -> float:
    """Run a batch, or kill it after some seconds; returns the seconds it took."""
    began = time.monotonic()
    command = [sys.executable, "-m", "dbcpu", "batch", source, results, "-q", *options]
    process = subprocess.Popen(command)
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    if process.wait() != (0 if kill_after is None else -signal.SIGKILL):
        raise SystemExit(f"exit code {process.returncode}")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--pages", type=int, default=2000)
    given = parser.parse_args()
    pictures = sorted(p for p in given.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    options = ("--short-side", "64", "--tile", "off", "--workers", "2")
    with served_bucket() as client, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number, picture in zip(range(given.pages), itertools.cycle(pictures)):
            name = f"box {number % 7}/{number:05d}{picture.suffix.lower()}"
            (folder / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "scans" / name).write_bytes(picture.read_bytes())
            client.put_object(Bucket=BUCKET, Key=f"scans/{name}", Body=picture.read_bytes())
        print(f"folder: {run(str(folder / 'scans'), str(folder / 'out'), *options):.1f} s", flush=True)
        scans, results = f"s3://{BUCKET}/scans", f"s3://{BUCKET}/out"
        killed = run(scans, results, *options, kill_after=30)
        print(
            f"object store: killed after {killed:.1f} s, the rest took {run(scans, results, *options):.1f} s",
            flush=True,
        )
        found = objects(client, "out")
        same = without_times(found, also=OWN_FIELDS) == without_times(files_in(folder / "out"), also=OWN_FIELDS)
        print(f"{len(found)} objects of results, {'the same' if same else 'DIFFERENT'}", flush=True)
        print(f"with nothing to do: {run(scans, results, *options):.1f} s")


if __name__ == "__main__":
    main()
