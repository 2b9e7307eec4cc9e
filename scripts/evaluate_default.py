"""Score the default model, or other weights, on the six test sets, and print the table of the model card.

    python scripts/evaluate_default.py ../shared [--weights FILE] [more options of dbcpu detect]

`iou_f` and `cov_f` come from `score.py` of that folder, which does not depend on dbcpu.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SETS = ("sroie", "tapuscorpus", "ndl_docl", "funsd", "docbank", "scene_clean")
# What detect_with_rapidocr.py finds, by the same score.py: the measure that suits the truth.
PEER = {
    "sroie": ("iou_f", 0.939),
    "tapuscorpus": ("iou_f", 0.888),
    "ndl_docl": ("iou_f", 0.518),
    "funsd": ("cov_f", 0.952),
    "docbank": ("cov_f", 0.970),
    "scene_clean": ("cov_f", 0.905),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    arguments, detect_options = parser.parse_known_args()
    print("| test set | pages | IoU P / R / F | DetEval F | `iou_f` | `cov_f` | PP-OCRv4 mobile |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in SETS:
        truth = arguments.shared / "data" / "test" / name
        pages = sorted(map(str, (truth / "images").iterdir()))
        with tempfile.TemporaryDirectory() as out:
            run("-m", "dbcpu", "detect", *pages, "--ignore-exif", "-q", "-o", out, *detect_options)
            iou, deteval = (evaluate(truth, out, protocol) for protocol in ("iou", "deteval"))
            scores = json.loads(run(str(arguments.shared / "score.py"), str(truth), out).replace("'", '"'))
        measure, peer = PEER[name]
        print(
            f"| {name} | {len(pages)} | {iou['precision']:.3f} / {iou['recall']:.3f} / {iou['f']:.3f} "
            f"| {deteval['f']:.3f} | {scores['iou_f']:.3f} | {scores['cov_f']:.3f} | `{measure}` {peer:.3f} |",
            flush=True,
        )


def evaluate(truth: Path, detections: str, protocol: str) -> dict[str, float]:
    document = run("-m", "dbcpu", "evaluate", str(truth), "--detections", detections, "--protocol", protocol, "--json")
    total: dict[str, float] = json.loads(document)["sets"][0]
    return total


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
