"""Training pictures of posters and of streets where they hang; photographs of scenes that are not sharp."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcpu.errors import UsageError
from dbcpu.geometry import Size
from scripts.train import planes, snapshots
from scripts.train.boards import FAINT, leave_illegible
from scripts.train.fonts import FontShelf
from scripts.train.posters import make_poster
from scripts.train.streets import street_page
from scripts.train.texts import Texts
from scripts.train.truth import Line, Page, rectangle


@pytest.fixture(scope="module")
def posters(shared: Path) -> list[Page]:
    try:
        shelf, texts = FontShelf(), Texts(shared / "data" / "layouts")
    except UsageError as error:
        pytest.skip(str(error))
    return [make_poster(np.random.default_rng(seed), texts, shelf, [], 300, 400) for seed in range(40)]


def test_what_is_written_on_posters_can_be_told_from_its_ground(posters: list[Page]):
    assert sum(len(lines) for _, lines in posters) > 60
    for picture, lines in posters:
        assert picture.shape == (300, 400, 3)
        assert not any(line.ignored for line in leave_illegible((picture, lines), lowest=0)[1]), FAINT


def test_lines_of_posters_do_not_cover_each_other(posters: list[Page]):
    for _, lines in posters:
        for one, other in combinations([line.polygon for line in lines], 2):
            common, _ = cv2.intersectConvexConvex(one, other)
            assert common < 0.35 * min(cv2.contourArea(one), cv2.contourArea(other))


def test_what_is_written_on_a_wall_is_outlined_where_it_is_seen():
    poster, polygon = np.full((200, 300, 3), 30, np.uint8), rectangle(60, 80, 240, 120)
    cv2.fillPoly(poster, [polygon.astype(np.int32)], (240, 240, 240))
    compared = 0
    for seed in range(12):
        picture, lines = street_page(np.random.default_rng(seed), [(poster, [Line(polygon)])], [])
        for line in (line for line in lines if not line.ignored):
            inside = np.zeros(picture.shape[:2], np.uint8)
            cv2.fillPoly(inside, [line.polygon.round().astype(np.int32)], 1)
            near, far = (cv2.dilate(inside, np.ones((side, side), np.uint8)) for side in (7, 15))
            grey = picture.mean(axis=2)
            assert grey[inside > 0].mean() > grey[(far > 0) & (near == 0)].mean() + 20
            compared += 1
    assert compared > 6


def test_streets_show_posters_where_their_lines_are(posters: list[Page]):
    seen = 0
    for seed in range(6):
        picture, lines = street_page(np.random.default_rng(seed), posters[seed::6], [])
        assert picture.dtype == np.uint8
        seen += sum(not line.ignored for line in lines)
    assert seen > 6


@given(
    seed=st.integers(0, 2**32 - 1),
    plane=st.builds(Size, st.integers(40, 500), st.integers(40, 500)),
)
def test_planes_on_walls_are_hardly_turned_to_a_side(seed: int, plane: Size):
    matrix = planes.place_plane(np.random.default_rng(seed), plane, Size(700, 900), "wall")
    middle = np.array([[[0, plane.height / 2], [plane.width, plane.height / 2]]], np.float32)
    ((x0, y0), (x1, y1)) = cv2.perspectiveTransform(middle, matrix)[0].tolist()
    assert x1 > x0
    assert abs(np.degrees(np.arctan2(y1 - y0, x1 - x0))) < 25


@pytest.mark.parametrize(("flawed", "soft"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_what_a_bad_photograph_shows_too_small_is_left_out_of_the_loss(flawed: float, soft: float):
    scene = np.full((300, 400, 3), 200, np.float32)
    low, high = rectangle(20, 20, 200, 24), rectangle(20, 100, 380, 220)
    for polygon in (low, high):
        cv2.fillPoly(scene, [polygon.astype(np.int32)], (0, 0, 0))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        _, lines = snapshots.take(rng, scene, [Line(low), Line(high)], flawed=flawed, soft=soft)
        assert [line.ignored for line in lines] == [True, False]
