"""Draw what the default model finds on parts of pages, into tests/data/overlays: pictures of README and model card.

python -m scripts.draw_overlays ../shared
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2

from dbcpu import load_detector
from dbcpu.image import read_image
from dbcpu.writers.overlay import draw_overlay

ROOT = Path(__file__).parents[1]
OVERLAYS = ROOT / "tests/data/overlays"


class Part(NamedTuple):
    """A page, the part of it that is shown (left, top, right, bottom), and the factor that this is reduced by."""

    page: Path
    place: tuple[int, int, int, int]
    factor: float


def parts(data: Path) -> dict[str, Part]:
    """Return the parts by the names of their pictures, pages from the shared folder `data`."""
    books, typescripts = data / "test/ndl_docl/images", data / "test/tapuscorpus/images"
    return {
        "japanese_book": Part(books / "tugidigi_2544473_05.jpg", (82, 160, 842, 1010), 0.75),
        "japanese_manuscript": Part(books / "kotenseki_3508165_10.jpg", (61, 120, 861, 1020), 0.7),
        "receipt": Part(data / "test/sroie/images/012.jpg", (0, 0, 741, 760), 0.75),
        "typescript": Part(ROOT / "tests/data/sample.jpg", (0, 0, 633, 740), 0.85),
        "failure_large": Part(typescripts / "12148btv1b525062_0_4a125_default.jpg", (0, 0, 1600, 660), 0.45),
        "failure_squeezed": Part(typescripts / "12148btv1b525026_9_04276_default.jpg", (150, 380, 1050, 980), 0.75),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    arguments = parser.parse_args()
    detector = load_detector()
    for name, (page, (left, top, right, bottom), factor) in parts(arguments.shared / "data").items():
        (source,) = read_image(page)
        overlay = draw_overlay(source.pixels_bgr, detector.detect(source.pixels_bgr))[top:bottom, left:right]
        small = cv2.resize(overlay, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(OVERLAYS / f"{name}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
