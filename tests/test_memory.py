"""How much memory pages take: measured in processes of their own, whose peak is not that of the tests before."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, page, png
from PIL import Image

SAMPLE = Path(__file__).parent / "data" / "sample.jpg"
# Linux counts in ru_maxrss what the process that started this one had, be it pytest after a hundred tests.
PEAK = """
import resource, sys
def peak():
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return 1024 * int(next(line for line in status if line.startswith("VmHWM:")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""


def _run(code: str, *arguments: object) -> float:
    """Run a program that prints a number last, and return that."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", PEAK + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


SIDE = 4000
_PICTURE = Image.fromarray(np.tile(page(40, 50), (SIDE // 40, SIDE // 50, 1)))
_TURNED = Image.Exif()
_TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("content", "bytes_per_pixel"),
    [
        pytest.param(lambda: encode(_PICTURE, "JPEG"), 7, id="jpeg"),
        pytest.param(lambda: encode(_PICTURE, "JPEG", exif=_TURNED), 7, id="turned jpeg"),
        pytest.param(lambda: encode(_PICTURE.convert("L"), "PNG"), 4, id="grey png"),
        pytest.param(lambda: encode(_PICTURE.quantize(16), "PNG"), 4, id="palette png"),
        pytest.param(lambda: encode(_PICTURE.convert("CMYK"), "TIFF", compression="tiff_lzw"), 7, id="cmyk tiff"),
        pytest.param(lambda: png(np.asarray(_PICTURE)[..., 0].astype(np.uint16)), 7, id="16-bit grey png"),
        pytest.param(lambda: png(np.asarray(_PICTURE).astype(np.uint16)), 14, id="16-bit colour png"),
        pytest.param(
            lambda: encode(_PICTURE, "TIFF", compression="jpeg", save_all=True, append_images=[_PICTURE]), 7, id="tiff"
        ),
    ],
)
def test_decoding_takes_no_more_bytes_per_pixel_than_stated(content: object, bytes_per_pixel: int, tmp_path: Path):
    path = tmp_path / "page"
    path.write_bytes(content())  # type: ignore[operator]
    code = (
        "import PIL.ImageCms\nfrom dbcpu.image import read_image\nbefore = peak()\n"
        "for source in read_image(sys.argv[1]):\n    del source\nprint(peak() - before)\n"
    )
    file_size = path.stat().st_size
    assert _run(code, path) < (bytes_per_pixel + 0.7) * SIDE * SIDE + 2 * file_size


@pytest.mark.slow
@pytest.mark.parametrize("tile", ["off", "6"])
def test_a_page_of_10000_x_14000_pixels_goes_through_everything_in_2_gb(tile: str, tmp_path: Path):
    path = tmp_path / "page.jpg"
    with Image.open(SAMPLE) as sample:
        huge = Image.new("RGB", (10000, 14000), "white")  # for the most part blank, since each tile takes its time
        width = 9000 if tile == "off" else 1000
        huge.paste(sample.resize((width, width * sample.height // sample.width)), (500, 500))
    huge.save(path, quality=80)
    code = "from dbcpu.cli.main import main\nassert main(['detect', *sys.argv[1:]]) == 0\nprint(peak())\n"
    options = ("-q", "--threads", 1, "--tile", tile, "-o", tmp_path, "--overlay", tmp_path)
    assert _run(code, path, *options) < 2e9
    assert len(json.loads((tmp_path / "page.json").read_text())["instances"]) > 15


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_kept_for_the_next_pages_but_not_for_ever():
    code = """
import numpy as np
from dbcpu.engine.memory import give_back, keep_freed_memory
def resident():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * resource.getpagesize()
assert keep_freed_memory()
before = resident()
blocks = [np.ones(4_000_000) for _ in range(10)]
del blocks[:-1]  # the last one is above the others, so that the heap cannot shrink
print(resident() - before)
if sys.argv[1] == "later":
    for _ in range(16):
        give_back(1000)
print(resident() - before)
"""
    assert _run(code, "at once") > 300e6
    assert _run(code, "later") < 100e6
