"""Take the pictures without text that `photographs.txt` names out of free packages: what is behind signs.

    python -m scripts.train.photographs PACKAGES --out PICTURES

PACKAGES holds a folder for each package, unpacked. PICTURES receives `train/` and `kept/`, the latter for the choice of
thresholds, each with folders for views, abstract pictures and textures. Panoramas need `pip install openexr`.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dbcpu.errors import UsageError
from scripts.train.command import errors_told

LIST = Path(__file__).with_name("photographs.txt")
SHORT_SIDE = 1400  # larger pictures are reduced to it
PANORAMA_SIDE = 640
QUALITY = 90  # of the JPEG files


def read_panorama(data: bytes, side: int) -> Image.Image:
    """Return the left (0) or right (1) half of a panorama in OpenEXR, between sky and ground, as a camera shows it.

    Raises:
        UsageError: the package that reads it is missing.
        OSError: it cannot be read.
    """
    try:
        import OpenEXR
    except ImportError:
        raise UsageError("panoramas need another package", remedy="pip install openexr") from None
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(data)
        file.flush()
        try:
            light = OpenEXR.File(file.name).channels()["RGB"].pixels.astype(np.float32)
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from None
    light *= 0.45 / np.percentile(light.mean(axis=2), 60)
    band = (255 * np.clip(light / (1 + light / 2), 0, 1) ** (1 / 2.2)).astype(np.uint8)
    band = band[int(0.22 * len(band)) : int(0.8 * len(band))]
    half = Image.fromarray(np.ascontiguousarray(np.split(band, 2, axis=1)[side]))
    return _resize(half, PANORAMA_SIDE)


def read_picture(path: Path, part: str) -> Image.Image:
    """Return a picture, upright or not as stored, in RGB.

    Args:
        path: of the file.
        part: where in it, empty for all of it: see `photographs.txt`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".js":  # a module that carries a file as text
            found = re.search(rb"base64,([\w+/=]+)", data)
            data = base64.b64decode(found[1]) if found else data
        if part and path.suffix in (".exr", ".js"):
            return read_panorama(data, int(part))
        picture = Image.open(io.BytesIO(data[int(part or 0) :])).convert("RGB")
    except OSError as error:
        raise UsageError(f"cannot read the picture: {error}", where=path) from None
    return picture if min(picture.size) <= SHORT_SIDE else _resize(picture, SHORT_SIDE)


def _resize(picture: Image.Image, short_side: int) -> Image.Image:
    fit = short_side / min(picture.size)
    return picture.resize((round(picture.width * fit), round(picture.height * fit)), Image.Resampling.BICUBIC)


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, made if missing")
    parser.add_argument("--list", type=Path, default=LIST, help="(default: photographs.txt)")
    arguments = parser.parse_args()
    rows = [row for row in arguments.list.read_text(encoding="utf-8").splitlines() if not row.startswith("#")]
    for number, row in enumerate(rows):
        use, kind, name = row.split(maxsplit=2)
        name, _, part = name.partition("#")
        folder = arguments.out / use / kind
        folder.mkdir(parents=True, exist_ok=True)
        picture = read_picture(arguments.packages / name, part)
        picture.save(folder / f"{number:04}_{Path(name).stem}.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
