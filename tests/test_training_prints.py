"""Training pages from documents and photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import pdf

from dbcpu.errors import UsageError
from scripts.train.prints import Documents, draw_page, join_pieces
from scripts.train.scenes import cut_photograph, find_photographs

# Two columns, the second line of the left one in two pieces; a hidden line, white on white; a grey picture below.
BODY = """BT /F 10 Tf 20 170 Td (Left column) Tj 150 0 Td (Right column) Tj ET
BT /F 10 Tf 20 140 Td (Two pieces,) Tj 57 0 Td (one line) Tj ET
BT /F 10 Tf 20 110 Td (Third) Tj 0 -20 Td (Fourth) Tj ET
1 g BT /F 10 Tf 150 110 Td (hidden) Tj ET
q 60 0 0 40 20 20 cm /P Do Q"""
PAGE = pdf(
    "<< /Type /Catalog /Pages 2 0 R >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 /MediaBox [0 0 300 200] >>",
    "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F 5 0 R >> /XObject << /P 6 0 R >> >> >>",
    f"<< /Length {len(BODY)} >>\nstream\n{BODY}\nendstream",
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>\n"
    "stream\n@\nendstream",
)


def test_the_lines_of_a_document_are_outlined_where_they_are_printed():
    sheet = draw_page(pypdfium2.PdfDocument(PAGE)[0], 800)
    assert (sheet.width, sheet.height) == (1200, 800)
    lines = [line for line in sheet.lines if not line.ignored]
    assert len(lines) == 5
    (picture,) = [line.polygon for line in sheet.lines if line.ignored]
    np.testing.assert_allclose(picture, [[80, 560], [320, 560], [320, 720], [80, 720]], atol=5)
    covered = np.zeros((800, 1200), np.uint8)
    for line in sheet.lines:
        cv2.fillPoly(covered, [line.polygon.round().astype(np.int32)], 1)
    ink = sheet.pixels().mean(axis=2) < 128
    assert ink.sum() > 1000
    assert not (ink & (covered == 0)).any()
    for line in lines:
        left, top = line.polygon.min(axis=0).astype(int)
        right, bottom = line.polygon.max(axis=0).astype(int)
        assert ink[top:bottom, left:right].mean() > 0.1


def test_the_words_of_a_document_are_of_one_height_and_together_hold_all_ink():
    sheet = draw_page(pypdfium2.PdfDocument(PAGE)[0], 800, words=True)
    words = [line.polygon for line in sheet.lines if not line.ignored]
    assert len(words) == 10
    np.testing.assert_allclose([np.ptp(word[:, 1]) for word in words], 46, atol=2)  # of ten points, times four
    covered = np.zeros((800, 1200), np.uint8)
    for line in sheet.lines:
        cv2.fillPoly(covered, [line.polygon.round().astype(np.int32)], 1)
    assert not ((sheet.pixels().mean(axis=2) < 128) & (covered == 0)).any()


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_shuffled_pieces_are_joined_to_the_lines_they_were_cut_from(counts: list[int], seed: int):
    rng = np.random.default_rng(seed)
    pieces, wanted = [], []
    for row, count in enumerate(counts):
        top = 30.0 * row
        # 20 wide, 3 apart, not all of the same height
        pieces += [[23 * k, top + rng.uniform(0, 3), 23 * k + 20, top + 10] for k in range(count)]
        pieces.append([23 * count + 15, top, 23 * count + 40, top + 10])  # the next column
        wanted += [23 * count - 3, 23 * count + 40]
    joined = list(join_pieces(np.float32(pieces)[rng.permutation(len(pieces))]))
    assert sorted(box[2] for box in joined) == sorted(wanted)


def test_pages_are_drawn_from_the_documents_of_a_folder_and_damaged_ones_are_passed_over(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "good.pdf").write_bytes(PAGE)
    (tmp_path / "damaged.pdf").write_bytes(PAGE[:40])
    documents = Documents(tmp_path)
    for seed in range(4):
        sheet = documents.draw(np.random.default_rng(seed))
        assert 736 <= min(sheet.width, sheet.height) < 1100
        assert len(sheet.lines) == 6


def test_a_folder_of_nothing_but_damaged_documents_is_given_up(tmp_path: Path):
    (tmp_path / "damaged.pdf").write_bytes(PAGE[:40])
    with pytest.raises(UsageError, match=rf"{tmp_path}.*lines of text"):
        Documents(tmp_path).draw(np.random.default_rng(0))


def test_folders_without_documents_or_photographs_are_named(tmp_path: Path):
    with pytest.raises(UsageError, match=rf"{tmp_path}.*\*\.pdf"):
        Documents(tmp_path)
    with pytest.raises(UsageError, match=rf"{tmp_path}.*photographs"):
        find_photographs(tmp_path)


@pytest.mark.parametrize("size", [(40, 90), (700, 300)])
def test_a_piece_of_a_photograph_has_the_size_asked_for(tmp_path: Path, size: tuple[int, int]):
    cv2.imwrite(str(tmp_path / "p.png"), np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    (path,) = find_photographs(tmp_path)
    for seed in range(4):
        piece = cut_photograph(np.random.default_rng(seed), path, 60, 80)
        assert piece.shape == (60, 80, 3)
        assert piece.dtype == np.float32
        assert piece.std() > 5
