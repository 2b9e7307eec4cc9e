"""Compare with the numbers that the original code computed, and print the largest error of each kind.

    python scripts/golden.py             # operator, networks, post-processing
    python scripts/golden.py ../shared   # also the trained checkpoint on its nine real pages, and all networks on two:
                                         # the fast form beside the network as built, with low thresholds

Ends with exit code 1 where a tolerance is exceeded.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dbcpu import Size, load_detector
from dbcpu.checkpoint.load import load_network, read_weights
from dbcpu.config import PostprocessConfig
from dbcpu.detector import Detector
from dbcpu.ops import deform_conv2d
from dbcpu.postprocess import detect_text
from dbcpu.result import TextInstance

GOLDEN = Path(__file__).parents[1] / "tests/data/golden"
OPERATOR, NETWORK, PIXEL, SCORE = 1e-9, 5e-5, 1.0, 1e-6
# A pixel of the map that sits on the threshold may change a region: the trained pages allow 1 in 100.
DIFFERING_REGIONS = 0.01

PAGES = ("test/sroie/images/012.jpg", "test/sroie/images/069.jpg")

Row = tuple[str, float, bool]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, nargs="?", help="folder that holds golden/trained and data")
    arguments = parser.parse_args()
    groups: list[tuple[str, Callable[[], list[Row]]]] = [
        ("operator, relative error", operator),
        ("probability maps, absolute error", networks),
        ("post-processing, pixels", postprocessing),
    ]
    if arguments.shared is not None:
        groups.append(("trained pages, pixels", lambda: trained(arguments.shared)))
        groups.append(("fast form beside the network as built, pixels", lambda: fast_form(arguments.shared)))
    failed = 0
    for title, compute in groups:
        rows = compute()
        good = sum(ok for _, _, ok in rows)
        failed += len(rows) - good
        print(f"{title}: {good}/{len(rows)}, largest {max(error for _, error, _ in rows):.2g}")
        for name, error, ok in rows:
            print(f"  {'ok ' if ok else 'BAD'} {error:9.2g}  {name}")
    return 1 if failed else 0


def operator() -> list[Row]:
    rows = []
    with np.load(GOLDEN / "deform_conv2d.npz") as stored:
        for case in read_json("deform_conv2d.json"):
            name = case["name"]
            arrays = {
                key: torch.from_numpy(stored[f"{name}/{key}"]).requires_grad_()
                for key in ("input", "offset", "weight", "mask", "bias")
                if f"{name}/{key}" in stored
            }
            out = deform_conv2d(**arrays, stride=case["stride"], padding=case["padding"], dilation=case["dilation"])
            out.backward(torch.from_numpy(stored[f"{name}/grad_output"]))  # type: ignore[no-untyped-call]
            errors = [relative(out.detach(), stored[f"{name}/output"])]
            errors += [
                relative(array.grad, stored[f"{name}/grad_{key}"])
                for key, array in arrays.items()
                if case["gradients_defined"] or key != "offset"
            ]
            rows.append((name, max(errors), max(errors) <= OPERATOR))
    return rows


def relative(found: torch.Tensor | None, expected: npt.NDArray[np.float64]) -> float:
    if found is None:
        return float("inf")
    return float(np.abs(found.numpy() - expected).max() / max(1.0, np.abs(expected).max()))


def networks() -> list[Row]:
    synthetic = load_module(GOLDEN / "synthetic.py")
    rows = []
    with np.load(GOLDEN / "probability_maps.npz") as maps, tempfile.TemporaryDirectory() as folder:
        for entry in read_json("probability_maps.json"):
            checkpoint = Path(folder) / entry["variant"]
            if not checkpoint.exists():
                synthetic.save_checkpoint(entry["variant"], checkpoint)
            detector = load_detector(checkpoint, short_side=entry["short_side"])
            found = detector.probability_map(synthetic.image(entry["image"]))
            error = float(np.abs(found - maps[entry["key"]].squeeze()).max())
            rows.append((entry["key"], error, error <= NETWORK))
    return rows


def postprocessing() -> list[Row]:
    rows = []
    with np.load(GOLDEN / "postprocess_maps.npz") as maps:
        for entry in read_json("postprocess.json"):
            config = PostprocessConfig(
                shape="polygon" if entry["polygon"] else "quad",
                binarize_threshold=entry["thresh"],
                score_threshold=entry["box_thresh"],
                max_candidates=entry["max_candidates"],
            )
            size = Size(entry["dest_height"], entry["dest_width"])
            instances = detect_text(maps[entry["map"]].squeeze(), size, config).instances
            name = f"{entry['map']} {config.shape} {config.binarize_threshold} {config.score_threshold}"
            error = in_order(instances, entry["regions"], entry["scores"])
            rows.append((name, error, error <= PIXEL))
    return rows


def in_order(instances: tuple[TextInstance, ...], regions: list[Any], scores: list[float]) -> float:
    """Largest distance of a coordinate; infinite where number, order or scores differ."""
    if [len(i.polygon) for i in instances] != [len(r) for r in regions]:
        return float("inf")
    if any(abs(i.score - s) > SCORE for i, s in zip(instances, scores, strict=True)):
        return float("inf")
    return max((distance(i, r) for i, r in zip(instances, regions, strict=True)), default=0.0)


def distance(instance: TextInstance, region: list[Any]) -> float:
    return float(np.abs(instance.polygon - np.asarray(region)).max())


def trained(shared: Path) -> list[Row]:
    rows = []
    for entry in json.loads((shared / "golden/trained/detections.json").read_text(encoding="utf-8")):
        settings = {key: entry[key] for key in ("short_side", "shape", "binarize_threshold", "score_threshold")}
        detector = load_detector(shared / "golden/trained/final", **settings, max_candidates=entry["max_candidates"])
        found = list(detector.detect(shared / "data" / entry["image"], ignore_exif=True).instances)
        rows.append(
            in_any_order(
                f"{Path(entry['image']).name} {entry['shape']} {entry['score_threshold']}", found, entry["regions"]
            )
        )
    return rows


def in_any_order(name: str, found: list[TextInstance], regions: list[Any]) -> Row:
    """Pair each region with the nearest instance: the number must be equal, and all but a few within a pixel."""
    count, worst, missing = len(found), 0.0, 0
    for region in regions:
        near = min((i for i in found if len(i.polygon) == len(region)), key=lambda i: distance(i, region), default=None)
        if near is None or distance(near, region) > PIXEL:
            missing += 1
            continue
        worst = max(worst, distance(near, region))
        found.remove(near)
    good = count == len(regions) and missing <= max(1, DIFFERING_REGIONS * len(regions))
    name = f"{name}: {len(regions)} regions"
    return (f"{name}, {missing} differ" if missing else name, worst, good)


def fast_form(shared: Path) -> list[Row]:
    """The networks of the golden maps: what `load_detector` makes of them, beside the network as built."""
    synthetic = load_module(GOLDEN / "synthetic.py")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in sorted({entry["variant"] for entry in read_json("probability_maps.json")}):
            checkpoint = Path(folder) / variant
            synthetic.save_checkpoint(variant, checkpoint)
            for page in PAGES:
                fast = load_detector(checkpoint, binarize_threshold=0.2, score_threshold=0.3, min_side=0)
                weights = read_weights(checkpoint)
                plain = Detector(load_network(weights.tensors, weights.config.model), fast.config, name=variant)
                for shape in ("quad", "polygon"):
                    for detector in (fast, plain):
                        postprocess = replace(detector.config.postprocess, shape=shape)
                        detector.config = replace(detector.config, postprocess=postprocess)
                    expected = [i.polygon for i in plain.detect(shared / "data" / page, ignore_exif=True).instances]
                    found = list(fast.detect(shared / "data" / page, ignore_exif=True).instances)
                    rows.append(in_any_order(f"{variant} {Path(page).name} {shape}", found, expected))
    return rows


def read_json(name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return entries


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
