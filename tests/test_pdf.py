from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import run_cli
from pictures import encode, page, pdf
from PIL import Image

from dbcpu.errors import ImageError
from dbcpu.image import SourceImage, read_image

RGB = page(120, 180)
BGR = np.ascontiguousarray(RGB[..., ::-1])
PICTURES = [Image.fromarray(RGB), Image.fromarray(RGB[:, ::-1]), Image.fromarray(RGB.transpose(1, 0, 2))]
# Three scans of 100 dpi in one file, as Pillow writes them: pixels as JPEG.
SCANS = encode(PICTURES[0], "PDF", save_all=True, append_images=PICTURES[1:], resolution=100, quality=95)


def _pages(content: bytes, dpi: int = 100, **options: object) -> list[SourceImage]:
    return list(read_image(content, name="scan.pdf", dpi=dpi, **options))  # type: ignore[arg-type]


def _error(content: bytes, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        _pages(content, **options)  # type: ignore[arg-type]
    return str(caught.value)


def _one_page(body: str = "", *, page_entries: str = "", catalog: str = "", others: tuple[str, ...] = ()) -> bytes:
    """A page of 72 x 36 points with this content stream; `others` are objects from 5."""
    return pdf(
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 /MediaBox [0 0 72 36] >>",
        f"<< /Type /Page /Parent 2 0 R /Contents 4 0 R {page_entries} >>",
        f"<< /Length {len(body)} >>\nstream\n{body}\nendstream",
        *others,
    )


BLACK_TOP_LEFT = "0 g 0 18 36 18 re f"  # the origin of a PDF is at the bottom


def test_pages_come_with_their_pixels_their_number_and_their_count():
    pages = _pages(SCANS)
    assert [(p.name, p.page, p.is_last, p.page_count) for p in pages] == [
        ("scan.pdf", 1, False, 3),
        ("scan.pdf", 2, False, 3),
        ("scan.pdf", 3, True, 3),
    ]
    for source, picture in zip(pages, PICTURES, strict=True):
        assert source.pixels_bgr.shape == (picture.height, picture.width, 3)
        assert source.pixels_bgr.flags.c_contiguous
        assert np.abs(source.pixels_bgr[..., ::-1].astype(int) - np.asarray(picture)).mean() < 4


def test_the_dpi_decides_the_size():
    assert [_pages(SCANS, dpi)[0].pixels_bgr.shape[:2] for dpi in (50, 100, 300)] == [(60, 90), (120, 180), (360, 540)]
    assert next(read_image(SCANS)).pixels_bgr.shape[:2] == (240, 360), "200 dpi unless said otherwise"


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_turned_page_comes_out_upright(turn: int):
    (source,) = _pages(_one_page(BLACK_TOP_LEFT, page_entries=f"/Rotate {turn}"), 72)
    expected = np.full((36, 72), 255, np.uint8)
    expected[:18, :36] = 0
    np.testing.assert_array_equal(source.pixels_bgr[..., 0], np.rot90(expected, -turn // 90))


def test_only_the_crop_box_is_drawn():
    (source,) = _pages(_one_page(BLACK_TOP_LEFT, page_entries="/CropBox [18 9 54 27]"), 72)
    assert source.pixels_bgr.shape == (18, 36, 3)
    assert (source.pixels_bgr[:9, :18] == 0).all()
    assert (source.pixels_bgr[9:, 18:] == 255).all()


def test_a_page_without_contents_is_white():
    (source,) = _pages(_one_page())
    assert (source.pixels_bgr == 255).all()


def test_annotations_and_form_fields_are_drawn():
    square = "<< /Type /Annot /Subtype /Square /Rect [4 4 32 32] /C [1 0 0] /IC [1 0 0] /F 4 >>"
    (source,) = _pages(_one_page(page_entries="/Annots [5 0 R]", others=(square,)), 72)
    assert source.pixels_bgr[18, 18].tolist() == [0, 0, 255]

    text = "/FT /Tx /T (name) /V (HHHHHH) /DA (/Helv 20 Tf 0 g)"
    field = f"<< /Type /Annot /Subtype /Widget /Rect [2 2 70 34] /F 4 {text} >>"
    form = "/AcroForm << /Fields [5 0 R] /DA (/Helv 20 Tf 0 g) /DR << /Font << /Helv 6 0 R >> >> >>"
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    (source,) = _pages(_one_page(page_entries="/Annots [5 0 R]", catalog=form, others=(field, font)), 72)
    assert (source.pixels_bgr < 100).sum() > 100


def test_reading_may_begin_at_any_page():
    assert [(p.page, p.is_last) for p in _pages(SCANS, first_page=2)] == [(2, False), (3, True)]
    assert _error(SCANS, first_page=4) == "scan.pdf, page 4: the file ends with page 3"


def _encrypted(password: str, owner: str | None = None) -> bytes:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(SCANS))
    writer.encrypt(password, owner, algorithm="RC4-128")
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


@pytest.mark.parametrize("password", ["secret", "Schlüssel"])
def test_an_encrypted_file_opens_with_its_password_only(password: str):
    content = _encrypted(password)
    assert len(_pages(content, password=password)) == 3
    assert _error(content) == "scan.pdf: an encrypted PDF (give its password with --password)"
    assert _error(content, password=password[::-1]) == "scan.pdf: the password does not open this PDF"
    assert len(_pages(SCANS, password=password)) == 3


@pytest.mark.parametrize("password", [None, "owner", "of another file", "\udcff"])
def test_a_file_that_needs_no_password_to_be_read_opens_with_any(password: str | None):
    assert len(_pages(_encrypted("", "owner"), password=password)) == 3


def test_a_password_that_is_no_text_opens_nothing():
    no_text = "\udcff"
    assert _error(_encrypted("secret"), password=no_text) == "scan.pdf: the password does not open this PDF"


def test_a_pdf_is_known_by_its_content(tmp_path: Path):
    path = tmp_path / "no extension \udcff"
    try:
        path.write_bytes(b"\x1b%-12345X@PJL\n" + SCANS)
    except OSError:
        path = tmp_path / "no extension"
        path.write_bytes(b"\x1b%-12345X@PJL\n" + SCANS)
    assert len(list(read_image(path))) == 3
    (picture,) = read_image(encode(PICTURES[0], "JPEG", comment=b"made from %PDF-1.4"))
    assert picture.page_count is None
    assert picture.pixels_bgr.shape == BGR.shape


@pytest.mark.parametrize("cut", [9, 40, 200])
def test_what_begins_as_a_pdf_and_ends_too_early_is_called_damaged(cut: int):
    assert _error(SCANS[:cut]) == "scan.pdf: a PDF that is damaged or has no pages"


def test_no_pages_and_a_page_that_is_none_are_told():
    empty = pdf("<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [] /Count 0 >>")
    assert _error(empty) == "scan.pdf: a PDF that is damaged or has no pages"
    missing = pdf("<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [9 0 R] /Count 1 >>")
    assert _error(missing) == "scan.pdf: a damaged page, which cannot be drawn"


def test_the_limit_on_pixels_holds_before_anything_is_drawn():
    assert len(_pages(SCANS, max_pixels=120 * 180)) == 3
    assert _error(SCANS, max_pixels=120 * 180 - 1).startswith("scan.pdf: 180 x 120 pixels at 100 dpi are more than")
    endless = _one_page(page_entries="/MediaBox [0 0 1000000 1000000]")
    assert "more than the limit" in _error(endless)


def test_the_limit_on_pixels_holds_for_pictures_on_the_page_too():
    image = "<< /Type /XObject /Subtype /Image /Width 30000 /Height 30000 /ColorSpace /DeviceGray"
    image += " /BitsPerComponent 8 /Length 0 >>\nstream\n\nendstream"
    content = _one_page(
        "72 0 0 36 0 0 cm /I Do", page_entries="/Resources << /XObject << /I 5 0 R >> >>", others=(image,)
    )
    assert _error(content).startswith("scan.pdf: a picture of 30000 x 30000 pixels on the page is more than the limit")


def test_without_pdfium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    assert _error(SCANS) == "scan.pdf: a PDF, which needs pypdfium2 (pip install 'dbcpu[pdf]')"


def test_many_threads_may_read_at_once_and_leave_half_way():
    expected = [p.pixels_bgr for p in _pages(SCANS)]
    right: list[bool] = []

    def work() -> None:
        for _ in range(10):
            next(read_image(SCANS, dpi=100))
            right.append(all(map(np.array_equal, expected, (p.pixels_bgr for p in _pages(SCANS)))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 40


def test_nothing_is_printed_over_damaged_files(tmp_path: Path):
    for number, share in enumerate((0.1, 0.5, 0.9, 0.99)):
        (tmp_path / f"{number}.pdf").write_bytes(SCANS[: int(len(SCANS) * share)])
    code = (
        "import sys\nfrom dbcpu.errors import ImageError\nfrom dbcpu.image import read_image\n"
        "for path in sys.argv[1:]:\n    try:\n        next(read_image(path))\n    except ImageError:\n        pass\n"
    )
    command = [sys.executable, "-c", code, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_detect_reads_the_pages_of_a_pdf(tmp_path: Path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(_encrypted("secret"))
    code, out, err = run_cli("detect", path, "--dpi", 50, "--password", "secret", "--short-side", 64)
    assert code == 0, err
    documents = [json.loads(line) for line in out.splitlines()]
    assert [(d["page"], d["width"], d["height"]) for d in documents] == [(1, 90, 60), (2, 90, 60), (3, 60, 90)]
    code, _, err = run_cli("detect", path, "--short-side", 64)
    assert code == 5
    assert "--password" in err
