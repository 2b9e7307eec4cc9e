"""Training pictures of signs: planes turned away, inks that can be read, boards in a scene."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcpu.geometry import Size
from scripts.train import boards, fonts, planes, scenes, signs
from scripts.train.truth import Line, move_lines, rectangle


@given(
    yaw=st.floats(0.2, 1),
    pitch=st.floats(-1, 1),
    width=st.floats(20, 400),
    height=st.floats(20, 400),
)
def test_a_sign_that_is_turned_away_is_narrower_and_its_far_side_lower(
    yaw: float, pitch: float, width: float, height: float
):
    corners = np.float64([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    assert np.allclose(planes.turn_away(corners, 0.0, 0.0), corners)
    seen = planes.turn_away(corners, yaw, 0.0)
    assert np.ptp(seen[:, 0]) < width
    assert np.ptp(seen[[1, 2], 1]) > height > np.ptp(seen[[0, 3], 1])
    turned = planes.turn_away(corners, yaw, pitch).astype(np.float32)
    assert cv2.isContourConvex(turned)


@given(seed=st.integers(0, 2**32 - 1), contrast=st.floats(0, 120), level=st.integers(0, 255))
def test_signs_have_ink_that_can_be_told_from_the_ground(seed: int, contrast: float, level: int):
    ground = np.full(3, level, np.float32)
    ink = signs.readable_colour(np.random.default_rng(seed), ground, contrast)
    assert ((ink >= 0) & (ink <= 255)).all()
    assert np.abs(ink - ground).max() >= contrast - 1e-3


@given(
    seed=st.integers(0, 2**32 - 1),
    plane=st.builds(Size, st.integers(20, 900), st.integers(20, 900)),
    frame=st.builds(Size, st.integers(300, 900), st.integers(300, 900)),
)
def test_an_upright_plane_is_seen_with_its_corners_in_their_order(seed: int, plane: Size, frame: Size):
    matrix = planes.place_plane(np.random.default_rng(seed), plane, frame, "upright")
    outline = planes.see_outline(plane, matrix)
    assert cv2.isContourConvex(outline)
    assert cv2.contourArea(outline, oriented=True) > 0
    assert cv2.contourArea(outline) <= 1.05 * plane.height * plane.width


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_on_a_board_is_outlined_where_it_hangs(seed: int):
    rng = np.random.default_rng(seed)
    page = np.full((600, 500, 3), 255, np.uint8)
    polygon = rectangle(100, 200, 400, 300)
    cv2.fillPoly(page, [polygon.astype(np.int32)], (0, 0, 0))
    frame = Size(700, 900)
    picture, lines = boards.mount(rng, (page, [Line(polygon)]), frame, 0.8)
    matrix = planes.place_plane(rng, Size(*picture.shape[:2]), frame, "any")
    scene = boards.hang(rng, np.full((*frame, 3), 20, np.float32), picture, matrix)
    inside, around = np.zeros(frame, np.uint8), np.zeros(frame, np.uint8)
    (line,) = move_lines(lines, matrix)
    cv2.fillPoly(inside, [line.polygon.round().astype(np.int32)], 1)
    cv2.fillPoly(around, [planes.see_outline(Size(*picture.shape[:2]), matrix).round().astype(np.int32)], 1)
    around = cv2.erode(around, np.ones((61, 61), np.uint8))
    dark = (scene.mean(axis=2) < 0.5 * scene[around > 0].max()) & (around > 0)
    seen = inside & around
    assert (seen & dark).sum() / (seen | dark).sum() > 0.8


def test_lines_too_low_to_read_on_a_reduced_page_are_left_out_of_the_loss():
    lines = [Line(rectangle(10, 10, 200, 40), "high"), Line(rectangle(10, 60, 200, 72), "low")]
    picture, reduced = boards.reduce((np.zeros((100, 300, 3), np.uint8), lines), 0.5)
    assert picture.shape == (50, 150, 3)
    np.testing.assert_allclose(reduced[0].polygon, lines[0].polygon / 2)


def test_low_and_invisible_lines_of_a_scene_are_left_out_of_the_loss():
    lines = [Line(rectangle(10, y, 190, y + height)) for y, height in ((10, 20), (40, 8), (60, 20))]
    picture = np.full((100, 200, 3), 200, np.uint8)
    picture[10:48, 10:190:4] = 0
    assert [line.ignored for line in boards.leave_illegible((picture, lines))[1]] == [False, True, True]


def test_of_lines_out_of_focus_low_ones_are_background_and_higher_ones_left_out_of_the_loss_or_still_text():
    lines = [Line(rectangle(10, y, 900, y + height)) for y, height in ((10, 3), (20, 50), (100, 300))]
    scene = np.full((420, 920, 3), 200, np.float32)
    scene[20:70:4] = 0
    blurred, visible = signs._unfocus(np.random.default_rng(1), scene, lines)
    assert [line.ignored for line in visible] == [True, False]
    assert visible[0].polygon is lines[1].polygon
    assert np.ptp(blurred[30:60]) < 0.5 * np.ptp(scene)


def test_nearly_all_symbols_are_in_their_font():
    face = fonts.Face(str(fonts.FONT_ROOT / "opentype/font-awesome/FontAwesome.otf"), 0)
    try:
        drawn = [fonts.has_glyph(face, symbol) for symbol in signs.SYMBOLS]
    except OSError:
        pytest.skip("needs Debian's fonts-font-awesome")
    assert np.mean(drawn) > 0.9


@pytest.mark.parametrize("seed", range(8))
def test_what_crosses_a_scene_leaves_most_of_it_to_be_seen(seed: int):
    scene = np.full((600, 900, 3), -1, np.float32)
    scenes.cross(np.random.default_rng(seed), scene)
    assert 0 < (scene[..., 0] != -1).mean() < 0.4


def test_planes_that_found_no_place_are_tried_smaller():
    plane, frame = Size(100, 200), Size(600, 800)
    areas = [
        cv2.contourArea(
            planes.see_outline(plane, planes.place_plane(np.random.default_rng(5), plane, frame, "upright", scale))
        )
        for scale in (1.0, 0.5)
    ]
    assert areas[1] == pytest.approx(areas[0] / 4, rel=1e-3)
