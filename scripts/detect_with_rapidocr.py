"""Find text with PP-OCRv4 mobile as RapidOCR ships it, its own defaults: what the model card compares with.

    pip install rapidocr-onnxruntime==1.4.4
    python scripts/detect_with_rapidocr.py SET/images --out FOUND
    python ../shared/score.py SET FOUND

FOUND receives NAME.json for each picture, a list of quads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, made if missing")
    arguments = parser.parse_args()
    from rapidocr_onnxruntime import RapidOCR  # here, so that --help, which says how to install it, needs it not

    arguments.out.mkdir(parents=True, exist_ok=True)
    engine = RapidOCR()
    for path in sorted(arguments.images.iterdir()):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        quads, _ = engine(picture, use_det=True, use_cls=False, use_rec=False)
        found = [] if quads is None else [[[float(x), float(y)] for x, y in quad] for quad in quads]
        (arguments.out / f"{path.stem}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
