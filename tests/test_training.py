"""The training scripts: targets, losses, crops, the loop. Rendering pages needs Debian's fonts and skips without."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dbcpu.checkpoint.load import read_weights
from dbcpu.detector import DEFAULT_MODEL, load_detector
from dbcpu.errors import UsageError
from dbcpu.evaluate import Tally, score_page
from dbcpu.geometry import Size
from dbcpu.result import TextInstance
from scripts.train import fonts, ship, signs, texts, thresholds, train, validate, wear
from scripts.train.checkpoint import read_state, write_atomically, write_weights
from scripts.train.crops import CropSettings, _onto, cut_crop, retake
from scripts.train.curve import draw_curve
from scripts.train.losses import balanced_cross_entropy, detection_losses, dice_loss
from scripts.train.sheet import Sheet
from scripts.train.sources import CropReader, Source, split_pages
from scripts.train.stream import TensorBatch, open_stream
from scripts.train.targets import draw_targets, offset_outline, shrink_distance, smooth_outline
from scripts.train.trainer import Trainer, TrainSettings
from scripts.train.truth import Line, PageFile, read_lines, rectangle, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Change = Callable[[np.random.Generator, wear.Picture, list[Line]], tuple[wear.Picture, list[Line]]]


def filled(polygon: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [polygon.round().astype(np.int32)], 1)
    return canvas > 0


# Targets


@given(
    width=st.floats(8, 500),
    height=st.floats(8, 500),
    ratio=st.floats(0.5, 3),
)
def test_unclipping_a_kernel_gives_the_rectangle_back_whatever_its_proportions(
    width: float, height: float, ratio: float
):
    distance = shrink_distance(width * height, 2 * (width + height), ratio)
    inner_width, inner_height = width - 2 * distance, height - 2 * distance
    assert inner_width > 0
    assert inner_height > 0
    unclip = inner_width * inner_height * ratio / (2 * (inner_width + inner_height))
    assert math.isclose(unclip, distance, rel_tol=1e-6)


def test_the_shrink_distance_of_a_square_is_the_papers():
    assert math.isclose(shrink_distance(100 * 100, 400, 1.5), 100 * 100 * (1 - 0.4**2) / 400, rel_tol=0.03)


def test_a_shape_without_an_exact_distance_still_gets_one():
    radius = 20.0
    distance = shrink_distance(math.pi * radius**2, 2 * math.pi * radius, 1.5)
    assert 0 < distance < radius


def test_the_kernel_lies_inside_its_line_and_the_border_map_peaks_on_the_outline():
    polygon = rectangle(20, 30, 120, 60)
    targets = draw_targets([Line(polygon)], Size(96, 160), 1.5)
    inside = filled(polygon, (96, 160))
    assert targets.kernel.sum() > 0
    assert not (targets.kernel.astype(bool) & ~inside).any()
    assert targets.kernel[45, 70] == 1
    assert targets.border[30, 70] == pytest.approx(0.7)
    assert targets.border[5, 5] == pytest.approx(0.3)
    assert targets.border[:, 70].max() == pytest.approx(0.7)
    assert targets.border_mask[28, 70] == 1
    assert targets.border_mask[5, 5] == 0
    assert targets.kernel_mask.all()


def test_a_line_beyond_the_crop_is_drawn_as_far_as_it_reaches():
    whole = draw_targets([Line(rectangle(-200, 20, 400, 60))], Size(96, 96), 1.5)
    assert whole.kernel[40].all()
    assert whole.border[20].min() == pytest.approx(0.7)
    assert np.ptp(whole.border, axis=1).max() == pytest.approx(0)


@pytest.mark.parametrize("line", [Line(rectangle(20, 20, 80, 60), "###"), Line(rectangle(20, 20, 80, 23), "tiny")])
def test_ignored_and_tiny_lines_are_left_out_of_the_loss(line: Line):
    targets = draw_targets([line], Size(96, 96), 1.5)
    assert targets.kernel.sum() == 0
    assert targets.kernel_mask[21, 50] == 0
    assert targets.kernel_mask[80, 50] == 1
    assert targets.border_mask.sum() == 0


def test_wiggles_of_an_outline_do_not_change_its_shrink_distance_much():
    x = np.arange(0, 400, 5, dtype=np.float32)
    wiggle = (x / 5 % 2 * 3).astype(np.float32)
    outline = np.concatenate([np.stack([x, wiggle], 1), np.stack([x, 40 - wiggle], 1)[::-1]])

    def distance(polygon: npt.NDArray[np.float32]) -> float:
        return shrink_distance(cv2.contourArea(polygon), cv2.arcLength(polygon, True), 1.5)

    straight = distance(rectangle(0, 1.5, 395, 38.5))
    assert distance(smooth_outline(outline)) == pytest.approx(straight, rel=0.1)
    assert distance(outline) < 0.9 * straight


def test_offsetting_keeps_fractions_of_a_pixel():
    (ring,) = offset_outline(rectangle(0, 0, 50, 10), -1.25)
    assert ring.min(axis=0).tolist() == pytest.approx([1.25, 1.25], abs=0.07)


# Losses


def test_cross_entropy_counts_three_hard_background_pixels_per_kernel_pixel():
    target = torch.zeros(1, 10, 10)
    target[0, 0, :5] = 1
    probability = torch.full((1, 10, 10), 0.01)
    probability[0, 0, :5] = 0.99
    probability[0, 9, :] = 0.9
    mask = torch.ones_like(target)
    easy, hard = -math.log(0.99), -math.log(0.1)
    expected = (5 * easy + 10 * hard + 5 * easy) / 20
    assert balanced_cross_entropy(probability, target, mask).item() == pytest.approx(expected, rel=1e-4)
    mask[0, 9] = 0
    assert balanced_cross_entropy(probability, target, mask).item() == pytest.approx(easy, rel=1e-3)


def test_a_batch_without_text_still_has_a_finite_loss_and_gradient():
    probability = torch.full((1, 32, 32), 0.4, requires_grad=True)
    nothing, everywhere = torch.zeros(1, 32, 32), torch.ones(1, 32, 32)
    losses = detection_losses(probability, probability * 0.9, nothing, everywhere, nothing + 0.3, nothing)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert probability.grad is not None
    assert (probability.grad > 0).any()


def test_a_missed_word_costs_as_much_on_an_empty_crop_as_a_missed_page_of_lines():
    target = torch.zeros(2, 200, 200)
    target[0, 20:180, 20:180] = 1
    target[1, 90:110, 70:130] = 1
    everywhere = torch.ones_like(target)
    missed = [
        dice_loss(torch.where(torch.arange(2)[:, None, None] == k, 0, target), target, everywhere) for k in (0, 1)
    ]
    assert missed[0].item() == pytest.approx(0.5, abs=0.05)
    assert missed[1].item() == pytest.approx(missed[0].item(), abs=0.05)
    empty = torch.zeros_like(target[:1])
    assert dice_loss(torch.cat([target, empty]), torch.cat([target, empty]), torch.cat([everywhere, empty + 1])) == 0


def test_perfect_maps_cost_almost_nothing():
    targets = draw_targets([Line(rectangle(20, 30, 120, 60))], Size(96, 160), 1.5)
    kernel, kernel_mask, border, border_mask = (torch.from_numpy(m)[None].float() for m in targets)
    losses = detection_losses(kernel, border, kernel, kernel_mask, border, border_mask)
    assert losses.total.item() < 1e-3


# Truth, crops, sources


def test_the_last_field_of_a_truth_line_is_text_even_when_it_is_a_number(tmp_path: Path):
    path = tmp_path / "gt_a.txt"
    path.write_text("\ufeff1,2,30,2,30,12,1,12,42\n\n1,2,30,2,30,12,###\n", encoding="utf-8")
    first, second = read_lines(path)
    assert first.text == "42"
    assert first.polygon.shape == (4, 2)
    assert second.ignored


def test_a_truth_line_without_a_polygon_is_named(tmp_path: Path):
    path = tmp_path / "gt_a.txt"
    path.write_text("1,2,30,2,30,12,1,12,a\n1,two,3\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"gt_a\.txt, line 2"):
        read_lines(path)


def test_truth_survives_writing_and_reading(tmp_path: Path):
    lines = [Line(rectangle(1, 2, 30.5, 12), "a, b"), Line(rectangle(5, 5, 9, 9), "###")]
    write_lines(tmp_path / "gt_a.txt", lines)
    again = read_lines(tmp_path / "gt_a.txt")
    assert [line.text for line in again] == ["a  b", "###"]
    assert np.allclose(again[0].polygon, lines[0].polygon)


@given(seed=st.integers(0, 2**32 - 1), steep=st.booleans())
@example(seed=524863, steep=False)  # a kernel that leaves the crop beside a corner
def test_a_crops_kernels_lie_on_the_text_however_it_is_turned(seed: int, steep: bool):
    page = np.full((500, 400, 3), 255, np.uint8)
    lines = [Line(rectangle(60, y, 340, y + 24)) for y in range(60, 440, 60)]
    for line in lines:
        cv2.fillPoly(page, [line.polygon.astype(np.int32)], (0, 0, 0))
    settings = CropSettings(side=96, short_side=400, steep_share=float(steep))
    crop, targets = cut_crop(page, lines, settings, np.random.default_rng(seed))
    assert crop.shape == (96, 96, 3)
    assert (crop[targets.kernel > 0] < 128).all()


@given(st.floats(-900, 900), st.floats(1, 900), st.integers(1, 9))
def test_a_crop_is_moved_onto_its_page_and_no_further(start: float, extent: float, side: int):
    side *= 100
    corners = np.array([[start, 0], [start + extent, 0], [start + extent, side], [start, side]])
    move = _onto(corners, side)
    low, high = start + move[0], start + extent + move[0]
    assert (low <= 1e-6 and high >= side - 1e-6) or (low >= -1e-6 and high <= side + 1e-6)
    is_there = (start <= 0 and start + extent >= side) or (start >= 0 and start + extent <= side)
    assert (move[0] == 0) == is_there
    assert move[1] == 0


def test_most_crops_of_a_large_page_show_nothing_beyond_it():
    page = np.full((300, 700, 3), 200, np.uint8)
    settings = CropSettings(side=128, short_side=300, degrees=0, steep_share=0)
    rng = np.random.default_rng(0)
    assert np.mean([(cut_crop(page, [], settings, rng)[0] == 200).mean() > 0.97 for _ in range(200)]) >= 0.9


@pytest.mark.parametrize("seed", range(12))  # one crop in a million may be blotched beyond recognition
def test_half_of_the_crops_are_taken_again_and_still_show_what_they_did(seed: int):
    rng = np.random.default_rng(seed)
    crop = np.full((96, 64, 3), 225, np.uint8)
    crop[30:60, 10:50] = 30
    taken = [retake(crop, rng) for _ in range(24)]
    assert all(picture.shape == crop.shape and picture.dtype == np.uint8 for picture in taken)
    assert 2 <= sum(np.array_equal(picture, crop) for picture in taken) <= 23
    assert all(picture[38:52, 18:42].mean() + 40 < picture[:20].mean() for picture in taken)


def write_pages(folder: Path, count: int, text: str = "") -> list[PageFile]:
    """Write pages of black bars, each a line, or of a text in their place."""
    for name in ("images", "gts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        page = np.full((200, 160, 3), 240, np.uint8)
        lines = [Line(rectangle(20, y, 140, y + 14), "bar") for y in range(15, 180, 40)]
        for line in lines:
            corner = line.polygon[3].astype(int).tolist()
            if text:
                cv2.putText(page, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (10, 10, 10), 1, cv2.LINE_AA)
            else:
                cv2.fillPoly(page, [line.polygon.astype(np.int32)], (10, 10, 10))
        cv2.imwrite(str(folder / "images" / f"{number:02}.png"), page)
        write_lines(folder / "gts" / f"gt_{number:02}.txt", lines)
    return [PageFile(folder / "images" / f"{n:02}.png", folder / "gts" / f"gt_{n:02}.txt") for n in range(count)]


def test_pages_held_back_for_validation_are_never_trained_on(tmp_path: Path):
    pages = write_pages(tmp_path, 15)
    kept, held_back = split_pages(pages)
    assert len(held_back) == 2
    assert not set(kept) & set(held_back)
    source = Source(tmp_path, 1.0)
    source.refresh()
    assert source.pages == kept
    assert source.held_back() == held_back
    source = Source(tmp_path, 1.0, whole=True)
    source.refresh()
    assert (source.pages, source.held_back()) == (pages, [])


def test_a_growing_source_is_used_once_it_has_pages(tmp_path: Path):
    write_pages(tmp_path / "real", 2)
    sources = [Source(tmp_path / "real", 1.0), Source(tmp_path / "pool", 9.0, whole=True, growing=True)]
    reader = CropReader(sources, CropSettings(side=64, short_side=160), np.random.default_rng(0))
    crops, kernel, *_ = reader.draw_batch(3)
    assert crops.shape == (3, 64, 64, 3)
    assert kernel.shape == (3, 64, 64)
    write_pages(tmp_path / "pool", 1)
    reader.refresh()
    assert len(sources[1].pages) == 1


def test_larger_crops_come_fewer_to_a_batch(tmp_path: Path):
    write_pages(tmp_path, 2)
    settings = CropSettings(side=64, short_side=160)
    reader = CropReader([Source(tmp_path, 1.0)], settings, np.random.default_rng(0), other_sides=(96, 256))
    shapes = {reader.draw_batch(4)[1].shape for _ in range(20)}
    assert shapes == {(4, 64, 64), (2, 96, 96), (1, 256, 256)}


def test_a_large_batch_takes_two_crops_of_each_page_that_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pages(tmp_path, 2)
    reader = CropReader([Source(tmp_path, 1.0)], CropSettings(side=64, short_side=160), np.random.default_rng(0))
    read: list[PageFile] = []
    once = reader._read
    monkeypatch.setattr(reader, "_read", lambda page: (read.append(page), once(page))[1])
    for count, pages in ((15, 15), (16, 8), (17, 9)):
        read.clear()
        assert len(reader.draw_batch(count)[0]) == count
        assert len(read) == pages


def test_workers_cut_crops_of_their_own_that_the_seed_repeats(tmp_path: Path):
    write_pages(tmp_path, 2)
    settings = CropSettings(side=64, short_side=160, borders=False)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        batches = open_stream(CropReader([Source(tmp_path, 1.0)], settings, np.random.default_rng(0)), 4, workers=2)
        runs.append([next(batches) for _ in range(4)])
    assert [[t.shape for t in batch] for batch in runs[0]] == [[(4, 64, 64, 3), (4, 64, 64), (4, 64, 64)]] * 4
    assert all(torch.equal(a, b) for pair in zip(*runs, strict=True) for a, b in zip(*pair, strict=True))
    assert len({batch[0].numpy().tobytes() for batch in runs[0]}) == 4


def test_workers_end_with_their_stream_and_not_by_signals_to_the_run(tmp_path: Path):
    write_pages(tmp_path, 1)
    reader = CropReader([Source(tmp_path, 1.0)], CropSettings(side=512, short_side=160), np.random.default_rng(0))
    batches = open_stream(reader, 8, workers=1)  # so much that some is still being sent when the stream ends
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert os.getpgid(worker.pid or 0) == worker.pid != os.getpgid(0)
    del batches
    worker.join(20)
    assert worker.exitcode == 0


def test_a_folder_without_pages_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match="no pages"):
        CropReader([Source(tmp_path, 1.0)], CropSettings(), np.random.default_rng(0))


# Wear of synthetic pages


@pytest.mark.parametrize("change", [wear.curl, wear.lay_on_desk])
@pytest.mark.parametrize("seed", range(6))
def test_outlines_follow_the_page_when_it_is_bent_or_turned(change: Change, seed: int):
    picture = np.full((400, 300, 3), 255, np.float32)
    polygon = rectangle(60, 150, 240, 200)
    cv2.fillPoly(picture, [polygon.astype(np.int32)], (0, 0, 0))
    rng = np.random.default_rng(seed)
    moved, (line,) = change(rng, picture, [Line(polygon)])
    inside = filled(line.polygon, moved.shape[:2])
    window = cv2.dilate(inside.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    dark = (moved.mean(axis=2) < 128) & window
    assert (inside & dark).sum() / (inside | dark).sum() > 0.9


def test_a_finished_sheet_keeps_its_ink_within_its_outlines():
    for seed in range(4):
        sheet = Sheet(300, 400)
        sheet.pen.rectangle((60, 150, 240, 200), fill=(0, 0, 0))
        sheet.lines.append(Line(rectangle(60, 150, 240, 200)))
        picture, (line,) = wear.finish(np.random.default_rng(seed), sheet)
        inside = filled(line.polygon, picture.shape[:2])
        ring = cv2.dilate(inside.astype(np.uint8), np.ones((21, 21), np.uint8)) - inside
        assert picture[inside].mean() < picture[ring > 0].mean()


def test_a_sheet_below_shows_through_fainter_than_ink_and_adds_no_line():
    visible = 0
    for seed in range(8):
        sheet, below = Sheet(300, 400), Sheet(280, 420)
        sheet.pen.rectangle((60, 50, 240, 100), fill=(0, 0, 0))
        sheet.lines.append(Line(rectangle(60, 50, 240, 100)))
        below.pen.rectangle((60, 250, 240, 300), fill=(0, 0, 0))
        below.lines.append(Line(rectangle(60, 250, 240, 300)))
        paper = np.full((400, 300, 3), 240, np.float32)
        page = wear.print_on(np.random.default_rng(seed), paper, sheet, below)
        ink, seen = page[60:90, 80:220].mean(), page[270:280, 100:200].mean()
        assert seen - ink > 0.2 * 240
        visible += seen < page[200:230, 100:200].mean() - 4
        assert len(wear.finish(np.random.default_rng(seed), sheet, below)[1]) == 1
    assert visible >= 5


@pytest.mark.parametrize("seed", range(6))
def test_dirt_darkens_part_of_a_page_and_leaves_the_rest(seed: int):
    page = np.full((400, 300, 3), 240, np.float32)
    dirty = wear.speckle(np.random.default_rng(seed), page)
    assert set(np.unique(dirty)) <= {240, dirty.min()}
    assert (dirty == 240).mean() > 0.5


@pytest.fixture(scope="module")
def serif() -> fonts.Face:
    try:
        return fonts.FontShelf().pick("serif", np.random.default_rng(0))
    except UsageError as error:
        pytest.skip(str(error))


@given(
    x=st.floats(10, 250), y=st.floats(150, 380), size=st.integers(8, 40), text=st.sampled_from(["A", "page 12", "fjg"])
)
def test_a_line_written_up_the_margin_is_outlined_where_its_ink_is(
    serif: fonts.Face, x: float, y: float, size: int, text: str
):
    sheet = Sheet(300, 400)
    sheet.write_up(x, y, text, serif, size)
    (line,) = sheet.lines
    outline = filled(line.polygon, (400, 300))
    ink = sheet.pixels().min(axis=2) < 200
    assert ink.any()
    assert not (ink & ~outline).any()
    assert len(text) == 1 or np.ptp(line.polygon[:, 1]) > np.ptp(line.polygon[:, 0])


@given(size=st.integers(12, 90), rows=st.lists(st.sampled_from(["AT", "page", "12", "x"]), min_size=1, max_size=3))
def test_ink_lies_between_the_top_and_foot_that_are_told_of_it(serif: fonts.Face, size: int, rows: list[str]):
    top, foot = Sheet.ink_span(rows, serif, size)
    inked = np.zeros(200, bool)
    for row in rows:
        sheet = Sheet(400, 200)
        sheet.write(10, 20, row, serif, size)
        inked |= sheet.pixels().min(axis=(1, 2)) < 200
    (below,) = np.nonzero(inked)
    assert 20 + top - 1 <= below[0] <= 20 + top + 2
    assert 20 + foot - 3 <= below[-1] <= 20 + foot


@pytest.mark.parametrize("seed", range(12))
def test_stacked_lines_keep_their_ink_apart(serif: fonts.Face, seed: int):
    sheet = signs._stack(np.random.default_rng(seed), ["LEFT", "gap", "MINE"], serif, 50, 10.0)
    assert len(sheet.lines) == 3
    rows = np.flatnonzero(sheet.pixels().min(axis=(1, 2)) < 200)
    assert rows[-1] < sheet.height - 1
    assert len(np.flatnonzero(np.diff(rows) > 1)) == 2


def test_single_characters_are_neither_bars_nor_rings():
    assert not set(texts.CHARACTERS) & set("IlioO10|-")


@pytest.mark.parametrize("seed", range(8))
def test_figures_and_smaller_units_are_one_line_that_holds_all_ink(serif: fonts.Face, seed: int):
    rng = np.random.default_rng(seed)
    sheet = Sheet(900, 300)
    sheet.write_beside(100, 200, [(str(rng.integers(1, 999)), 150), ("kg", int(rng.integers(30, 150)))], serif)
    (line,) = sheet.lines
    outline = filled(line.polygon, (300, 900))
    ink = sheet.pixels().mean(axis=2) < 128
    assert ink.sum() > 1000
    assert not (ink & ~outline).any()


@given(
    text=st.sampled_from(["Ag", "page 12", "fresh juice"]),
    size=st.integers(20, 60),
    turn=st.floats(0.02, 3),
    down=st.booleans(),
    wobbling=st.booleans(),
)
def test_a_line_along_a_circle_is_outlined_where_its_ink_is(
    serif: fonts.Face, text: str, size: int, turn: float, down: bool, wobbling: bool
):
    curvature = min(turn / Sheet.text_width(text, serif, size), 0.6 / size) * (1 if down else -1)
    wobble = np.random.default_rng(size).uniform(-1, 1, (len(text), 2)) * ((0.1 * size, 0.1) if wobbling else 0)
    sheet = Sheet(900, 700)
    sheet.write_bent(450, 350, text, serif, size, curvature, wobble)
    (line,) = sheet.lines
    outline = filled(line.polygon, (700, 900))
    ink = sheet.pixels().mean(axis=2) < 128
    assert ink.sum() > size
    assert (ink & outline).sum() > 0.97 * ink.sum()
    assert outline.sum() < 2 * size * (Sheet.text_width(text, serif, size) + size)


def test_fonts_of_a_folder_join_their_family_and_other_folders_are_named(serif: fonts.Face, tmp_path: Path):
    package = tmp_path / "serif" / "mine"
    package.mkdir(parents=True)
    (package / "mine.ttf").write_bytes(Path(serif.path).read_bytes())
    assert fonts.find_faces(tmp_path)["serif"][-1] == [fonts.Face(str(package / "mine.ttf"), 0)]
    (tmp_path / "gothic").mkdir()
    with pytest.raises(UsageError, match="cjk_print"):
        fonts.find_faces(tmp_path)


def test_missing_fonts_are_named_with_the_command_that_installs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fonts, "FONT_ROOT", tmp_path)
    with pytest.raises(UsageError, match=r"fonts-noto-cjk.*apt-get install .*fonts-noto-cjk"):
        fonts.find_faces()


def test_what_the_edge_leaves_of_a_slanting_line_slants_as_before():
    from scripts.train.pages import clip_lines

    slanting = np.array([[80, 10], [160, 50], [150, 70], [70, 30]], np.float32)
    (cut,) = clip_lines([Line(slanting, "a"), Line(slanting + 200, "b")], 100, 100)
    assert cut.text == "a"
    assert cut.polygon.max() <= 100
    assert cv2.contourArea(cut.polygon) == pytest.approx(625)
    (whole,) = clip_lines([Line(slanting)], 200, 100)
    np.testing.assert_array_equal(whole.polygon, slanting)
    bow_tie = np.array([[-20, 0], [60, 40], [60, 0], [-20, 40]], np.float32)
    assert all((line.polygon >= 0).all() for line in clip_lines([Line(bow_tie)], 100, 100))


def test_a_page_of_every_kind_can_be_rendered_and_its_lines_lie_in_the_picture(shared: Path):
    from scripts.train.pages import SHARES, PageMaker, clip_lines

    try:
        maker = PageMaker(shared / "data" / "layouts")
    except UsageError as error:
        pytest.skip(str(error))
    with pytest.raises(UsageError, match="--documents"):
        maker.make(np.random.default_rng(5), "print")
    for kind in SHARES.keys() - {"print"}:
        picture, lines = maker.make(np.random.default_rng(5), kind)
        height, width = picture.shape[:2]
        lines = clip_lines(lines, width, height)
        assert lines, kind
        assert all((line.polygon >= 0).all() and (line.polygon <= (width, height)).all() for line in lines)


# The loop


def make_trainer(folder: Path, **settings: Any) -> tuple[Trainer, Iterator[TensorBatch]]:
    trainer = Trainer(TrainSettings(minutes=60, warm_up=1, **settings), torch.device("cpu"))
    crop = CropSettings(side=64, short_side=160, scales=(0.9, 1.1))
    return trainer, open_stream(CropReader([Source(folder, 1.0)], crop, trainer.rng), 2, workers=0)


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bars")
    write_pages(folder, 2)
    return folder


@pytest.mark.parametrize("threshold_head", [True, False])
def test_steps_on_one_batch_lower_its_loss(bars: Path, threshold_head: bool):
    trainer, batches = make_trainer(bars, threshold_head=threshold_head)
    batch = next(batches)
    first = trainer.train_step(batch).total.item()
    for _ in range(4):
        last = trainer.train_step(batch).total.item()
    assert last < 0.9 * first


@pytest.mark.parametrize("fixed", [True, False])
def test_fixed_norms_keep_their_statistics_while_everything_else_learns(bars: Path, fixed: bool):
    trainer, batches = make_trainer(bars, threshold_head=False, fixed_norms=fixed)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train_step(next(batches))
    kept = {name for name, tensor in trainer.model.state_dict().items() if torch.equal(tensor, before[name])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert kept == (statistics if fixed else set())


def test_a_resumed_run_continues_as_if_it_had_not_stopped(bars: Path, tmp_path: Path):
    trainer, batches = make_trainer(bars)
    trainer.train_step(next(batches))
    trainer.minutes = 12.5
    write_atomically(tmp_path / "state", trainer.state())
    uninterrupted = trainer.train_step(next(batches)).total.item()

    resumed, batches = make_trainer(bars, seed=7)
    resumed.load_state(read_state(tmp_path / "state"))
    assert (resumed.step, resumed.minutes) == (1, 12.5)
    assert resumed.train_step(next(batches)).total.item() == pytest.approx(uninterrupted, rel=1e-5)
    for name, tensor in trainer.average.model.state_dict().items():
        assert torch.allclose(tensor.float(), resumed.average.model.state_dict()[name].float(), atol=1e-5), name


def test_resuming_with_another_network_says_which_options_to_give(bars: Path):
    trainer, _ = make_trainer(bars, threshold_head=False)
    other, _ = make_trainer(bars)
    with pytest.raises(UsageError, match="--no-threshold-head"):
        other.load_state(trainer.state())


def test_the_learning_rate_rises_by_steps_and_falls_to_zero_with_the_minutes(bars: Path):
    trainer, _ = make_trainer(bars)
    peak = trainer.learning_rate()
    trainer.minutes = 30
    assert trainer.learning_rate() == pytest.approx(peak / 2)
    trainer.minutes = 60
    assert trainer.learning_rate() == pytest.approx(0)


def test_saved_weights_are_read_by_the_product_and_by_the_next_run(bars: Path, tmp_path: Path):
    trainer, _ = make_trainer(bars)
    write_weights(tmp_path / "last", trainer.average.model.state_dict())
    weights = read_weights(tmp_path / "last")
    assert weights.config.model.backbone == "resnet18"
    assert not weights.config.model.deformable
    assert trainer.start_from(tmp_path / "last") == []


def test_the_mean_of_two_checkpoints_is_shipped_and_another_network_refused(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    networks = {"a": {}, "b": {"seed": 1}, "other": {"deformable": True}}
    for name, settings in networks.items():
        write_weights(tmp_path / name, make_trainer(bars, **settings)[0].model.state_dict())
    model_file, name = tmp_path / "model.safetensors", "backbone.layer1.0.conv1.weight"
    command = ["ship", str(tmp_path / "a"), str(model_file), "--average-with"]
    monkeypatch.setattr("sys.argv", [*command, str(tmp_path / "b"), "--short-side", "800", "--quad-of", "polygon"])
    ship.main()
    config = read_weights(model_file).config
    assert (config.preprocess.short_side, config.postprocess.quad_of) == (800, "polygon")
    first, second, shipped = (read_weights(path).tensors[name] for path in (tmp_path / "a", tmp_path / "b", model_file))
    assert torch.allclose(shipped.float(), (first + second) / 2, atol=1e-3)
    assert not torch.allclose(shipped.float(), first, atol=1e-2)

    monkeypatch.setattr("sys.argv", ["ship", str(tmp_path / "other"), *command[2:], str(tmp_path / "b")])
    with pytest.raises(SystemExit, match="2"):
        ship.main()
    assert "b: of another network: no backbone.layer2.0.conv2_offset" in capsys.readouterr().err


@pytest.mark.parametrize("deformable_first", [False, True])
def test_a_network_goes_on_from_one_with_or_without_deformable_convolutions(
    bars: Path, tmp_path: Path, deformable_first: bool
):
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, _ = make_trainer(bars, deformable=deformable_first)
    write_weights(tmp_path / "last", first.model.state_dict())
    second, _ = make_trainer(bars, deformable=not deformable_first, seed=5)
    still_random = second.start_from(tmp_path / "last")
    assert len(still_random) == (0 if deformable_first else 12)
    assert all("conv2_offset" in name for name in still_random)
    with torch.inference_mode():
        before, after = (trainer.average.model.eval()(x) for trainer in (first, second))
    assert torch.allclose(before, after, atol=1e-5)


def test_validation_counts_matches_and_leaves_out_regions_on_ignored_lines():
    lines = [Line(rectangle(0, 0, 100, 20)), Line(rectangle(0, 50, 100, 70)), Line(rectangle(0, 100, 90, 130), "###")]
    found = [rectangle(2, 1, 98, 20), rectangle(0, 50, 30, 70), rectangle(5, 105, 80, 125)]
    instances = [TextInstance(polygon=polygon, score=0.9) for polygon in found]
    tally = score_page(validate.measure_page(lines, instances), "iou").tally
    assert tally == Tally(truths=2, detections=2, recalled=1, precise=1)


def test_validation_takes_whole_pages_through_inference(bars: Path):
    trainer, _ = make_trainer(bars)
    pages, _ = split_pages([PageFile(p, bars / "gts" / f"gt_{p.stem}.txt") for p in (bars / "images").iterdir()])
    tally = validate.validate(trainer.average.model, pages[:1], 1.5, 160, bfloat16=False)
    assert tally.truths == 5


@pytest.mark.parametrize("shares", [("0", "0.1"), ("1.2", "0.1"), ("nan", "0.1"), ("0.5", "-0.1"), ("0.5", "0.6")])
def test_shares_of_crops_that_are_none_are_refused_before_anything_is_written(
    bars: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shares: tuple[str, str],
):
    out = tmp_path / "run"
    folders = ["--real", str(bars), "--pool", str(bars), "--labelled", str(bars), "--out", str(out)]
    numbers = ["--minutes", "1", "--real-share", shares[0], "--labelled-share", shares[1]]
    monkeypatch.setattr("sys.argv", ["train", *folders, *numbers])
    with pytest.raises(SystemExit, match="2"):
        train.main()
    assert "--real-share" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_of_labelled_pictures_that_holds_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("sroie", "tapuscorpus", "ndl_docl"):
        write_pages(tmp_path / "real" / name, 1)
    pool, out = str(tmp_path / "pool"), str(tmp_path / "run")
    folders = ["--real", str(tmp_path / "real"), "--pool", pool, "--labelled", str(tmp_path), "--out", out]
    monkeypatch.setattr("sys.argv", ["train", *folders, "--minutes", "1"])
    with pytest.raises(SystemExit, match="2"):
        train.main()
    assert f"{tmp_path}: no pages" in capsys.readouterr().err


def test_thresholds_are_tried_on_every_set_and_the_best_are_printed_last(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("sroie", "tapuscorpus", "ndl_docl", "signs"):
        write_pages(tmp_path / name, 1 if name == "signs" else 5, "Thresholds: F")
    command = ["thresholds", str(DEFAULT_MODEL), "--real", str(tmp_path), "--pool-validation", str(tmp_path / "signs")]
    monkeypatch.setattr("sys.argv", command)
    thresholds.main()
    lines = capsys.readouterr().out.splitlines()
    means = [float(re.search(r"mean (\S+)", line)[1]) for line in lines]
    assert len(lines) == len(thresholds.BINARIZE) * len(thresholds.SCORES)
    assert means == sorted(means)
    assert means[-1] > 0.8
    assert re.search(r"sroie \S+ tapuscorpus \S+ ndl_docl \S+ signs \S+$", lines[-1])

    own = str(load_detector(DEFAULT_MODEL).config.postprocess.unclip_ratio)
    monkeypatch.setattr("sys.argv", [*command, "--unclip-ratio", "0.1", own])
    thresholds.main()
    both = capsys.readouterr().out.splitlines()
    assert len(both) == 2 * len(lines)
    assert both[-1] == lines[-1]
    unclipped = [float(re.search(r"mean (\S+)", line)[1]) for line in both if line.startswith("unclip 0.1 ")]
    assert max(unclipped) < means[-1], "kernels are no outlines"

    monkeypatch.setattr("sys.argv", [*command, "--compare-by", str(shared / "score.py")])
    thresholds.main()
    best = capsys.readouterr().out.splitlines()[-1]
    assert float(re.search(r"mean (\S+)", best)[1]) > 0.8

    monkeypatch.setattr("sys.argv", [command[0], str(tmp_path / "none"), *command[2:]])
    with pytest.raises(SystemExit, match="4"):
        thresholds.main()
    assert "none" in capsys.readouterr().err


def test_the_curve_is_drawn_from_the_log(tmp_path: Path):
    rows = [{"minutes": m, "loss_total": 3 - m / 9} | ({"f_mean": m / 20} if m % 5 == 0 else {}) for m in range(20)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    draw_curve(tmp_path / "log.jsonl", tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture.shape == (840, 1100, 3)
    assert (picture != 255).any()
