from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import postprocess as reference
from shapely.geometry import Polygon

from dbcpu.config import PostprocessConfig
from dbcpu.errors import ConfigError
from dbcpu.geometry import Size
from dbcpu.postprocess import detect_text
from dbcpu.unclip import unclip_distances, unclip_polygon, unclip_quads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dbcpu.config import Shape
    from dbcpu.postprocess import Detections

GOLDEN = Path(__file__).parent / "data" / "golden"
CASES = json.loads((GOLDEN / "postprocess.json").read_text())
SHAPES = ["quad", "polygon"]


@pytest.fixture(scope="module")
def golden_maps():
    with np.load(GOLDEN / "postprocess_maps.npz") as maps:
        return dict(maps)


def case_name(case: dict[str, Any]):
    shape = "polygon" if case["polygon"] else "quad"
    return f"{case['map']}-{shape}-{case['thresh']}-{case['box_thresh']}-{case['max_candidates']}"


def assert_same_as_reference(
    probability_map: npt.NDArray[np.float32], image_size: Size, config: PostprocessConfig
) -> Detections:
    """Same number and order, each coordinate and score the same; return what was found."""
    expected, truncated = reference.detect_text(probability_map, image_size, config)
    found = detect_text(probability_map, image_size, config)
    assert len(found.instances) == len(expected)
    assert found.truncated == truncated
    for instance, (polygon, score) in zip(found.instances, expected, strict=True):
        np.testing.assert_array_equal(instance.polygon, polygon)
        assert instance.score == pytest.approx(score, abs=1e-7)
    return found


def page(words: Sequence[tuple[int, int, int, int]]):
    """A map with a rectangle of 0.95 for each (left, top, right, bottom), its last row and column included."""
    probability_map = np.zeros((96, 160), np.float32)
    for left, top, right, bottom in words:
        probability_map[top : bottom + 1, left : right + 1] = 0.95
    return probability_map


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_original_codes_regions_are_reproduced(
    case: dict[str, Any], golden_maps: dict[str, npt.NDArray[np.float32]]
):
    config = PostprocessConfig(
        shape="polygon" if case["polygon"] else "quad",
        binarize_threshold=case["thresh"],
        score_threshold=case["box_thresh"],
        max_candidates=case["max_candidates"],
    )
    found = detect_text(golden_maps[case["map"]], Size(case["dest_height"], case["dest_width"]), config)
    assert len(found.instances) == len(case["regions"])
    for instance, polygon, score in zip(found.instances, case["regions"], case["scores"], strict=True):
        assert instance.polygon.shape == np.shape(polygon)
        np.testing.assert_allclose(instance.polygon, polygon, atol=1)
        assert instance.score == pytest.approx(score, abs=1e-6)


def test_the_golden_cases_are_all_there():
    assert len(CASES) == 56


@st.composite
def probability_maps(draw: st.DrawFn):
    """Maps of soft rotated words, thin lines, frames with holes and noise, many of them over the border."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 140)), draw(st.integers(1, 180))
    canvas = np.zeros((height, width), np.float32)
    for _ in range(draw(st.integers(0, 12))):
        centre = rng.uniform((-5, -5), (width + 5, height + 5))
        sides = np.exp(rng.uniform(0, np.log((80, 30))))
        corners = cv2.boxPoints((centre.tolist(), sides.tolist(), float(rng.choice([0, 45, 90, rng.uniform(-90, 90)]))))
        thickness = int(rng.choice([-1, -1, -1, 1, 2, 4]))
        cv2.drawContours(canvas, [corners.round().astype(np.int32)], 0, float(rng.uniform(0.4, 1)), thickness)
    if draw(st.booleans()):
        canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.3, 2.5))).reshape(height, width)
    noise = draw(st.sampled_from([0.0, 0.1, 0.6]))
    return np.clip(canvas + noise * (rng.random(canvas.shape) - 0.5), 0, 1).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(
    probability_map=probability_maps(),
    image_size=st.builds(Size, st.integers(1, 400), st.integers(1, 400)),
    config=st.builds(
        PostprocessConfig,
        shape=st.sampled_from(SHAPES),
        binarize_threshold=st.sampled_from([0.0, 0.2, 0.3, 0.7]),
        score_threshold=st.sampled_from([0.0, 0.3, 0.6]),
        max_candidates=st.sampled_from([1, 5, 1000]),
        min_side=st.sampled_from([0.0, 1.0, 3.0, 4.5]),
        unclip_ratio=st.sampled_from([None, None, 0.1, 1.0, 3.0, 20.0]),
        polygon_epsilon=st.sampled_from([0.0, 0.002, 0.01, 0.2]),
    ),
)
def test_any_map_gives_what_the_plain_loop_gives(
    probability_map: npt.NDArray[np.float32], image_size: Size, config: PostprocessConfig
):
    assert_same_as_reference(probability_map, image_size, config)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), longest=st.sampled_from([6, 40, 900]), ratio=st.sampled_from([0.2, 1.0, 1.5, 4]))
@example(seed=4944, longest=6, ratio=4)  # normals times distance are halves there, and the last bit rounds them
def test_rectangles_of_unclipped_quads_are_those_of_clipper_bit_for_bit(seed: int, longest: float, ratio: float):
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(0, np.log(longest), (100, 2)))
    angles = np.where(rng.random(100) < 0.3, rng.choice([0, 45, 90], 100), rng.uniform(-90, 90, 100))
    centres = rng.uniform(-5, 800, (100, 2))
    if seed % 2:
        centres, sides = centres.round(), sides.round()
    corners = [cv2.boxPoints((c, s, a)) for c, s, a in zip(centres, sides, angles.tolist(), strict=True)]
    quads = np.array(corners).astype(np.int32)
    quads[::10] = rng.permuted(quads[::10], axis=1)  # crossed and counterclockwise ones
    distances = unclip_distances(quads.reshape(-1, 2), [4] * 100, ratio)
    for quad, distance, points in zip(quads, distances, unclip_quads(quads, distances), strict=True):
        outline = unclip_polygon(quad, distance)
        assert (points is None) == (outline is None)
        if points is not None and outline is not None:
            assert cv2.minAreaRect(points) == cv2.minAreaRect(outline)


def test_the_unclip_distance_is_area_times_ratio_over_perimeter():
    square, line, triangle = [(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (9, 1)], [(0, 0), (0, 4), (3, 0)]
    distances = unclip_distances(np.array(square + line + triangle, np.int32), [4, 2, 3], 1.5)
    np.testing.assert_allclose(distances, [16 * 1.5 / 16, 0, 6 * 1.5 / 12], rtol=1e-15)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), corners=st.integers(3, 40), step=st.sampled_from([0.5, 1e-4]))
def test_unclip_distances_are_those_of_shapely_bit_for_bit(seed: int, corners: int, step: float):
    drawn = np.random.default_rng(seed).uniform(0, 900, (50, corners, 2))
    outlines = ((drawn / step).round() * step).astype(np.float32)
    polygons = [Polygon(outline) for outline in outlines]
    expected = [polygon.area * 1.5 / polygon.length for polygon in polygons]
    assert unclip_distances(outlines.reshape(-1, 2), [corners] * 50, 1.5).tolist() == expected


@pytest.mark.parametrize("seed", [76, 240, 295, 415])
def test_distances_on_the_brink_of_rounding_go_the_original_codes_way(seed: int):
    rng = np.random.default_rng(seed)
    probability_map = (rng.random((41, 53)) * (rng.random((41, 53)) < 0.6)).astype(np.float32)
    config = PostprocessConfig(binarize_threshold=0.7, score_threshold=0, min_side=0, polygon_epsilon=0)
    assert_same_as_reference(probability_map, Size(41, 53), config)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "probability_map",
    [
        np.zeros((32, 64), np.float32),
        np.ones((32, 64), np.float32),
        np.full((32, 64), np.nan, np.float32),
        np.ones((1, 64), np.float32),
        np.ones((64, 1), np.float32),
        np.ones((1, 1), np.float32),
        np.eye(64, dtype=np.float32),
        np.indices((33, 33)).sum(axis=0).astype(np.float32) % 2,
        page([(5, 5, 5, 5), (20, 5, 21, 5), (40, 5, 60, 5), (5, 20, 6, 21)]),
    ],
    ids=["zeros", "ones", "nan", "row", "column", "pixel", "diagonal", "checkerboard", "specks"],
)
@pytest.mark.parametrize("min_side", [0, 3])
def test_degenerate_maps_are_no_trouble(probability_map: npt.NDArray[np.float32], shape: Shape, min_side: float):
    config = PostprocessConfig(shape=shape, min_side=min_side, score_threshold=0)
    assert_same_as_reference(probability_map, Size(100, 100), config)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_map_of_ones_is_one_instance_that_fills_the_picture(shape: Shape):
    found = detect_text(np.ones((32, 64), np.float32), Size(100, 200), PostprocessConfig(shape=shape))
    (instance,) = found.instances
    assert instance.score == 1
    np.testing.assert_array_equal(instance.polygon.min(axis=0), [0, 0])
    np.testing.assert_array_equal(instance.polygon.max(axis=0), [200, 100])


def test_nan_counts_as_zero():
    broken = page([(20, 20, 60, 40)])
    broken[30, 25:35] = np.nan
    config = PostprocessConfig(score_threshold=0.5)
    found = assert_same_as_reference(broken, Size(96, 160), config)
    assert [i.score for i in found.instances] == [
        i.score for i in detect_text(np.nan_to_num(broken), Size(96, 160), config).instances
    ]
    assert len(found.instances) == 1
    assert found.instances[0].score == pytest.approx(0.95 * (1 - 10 / (41 * 21)), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_truncated_says_whether_the_limit_cut_candidates(shape: Shape):
    words = page([(10, 10 + 20 * i, 60, 18 + 20 * i) for i in range(4)])
    config = PostprocessConfig(shape=shape)
    everything = detect_text(words, Size(96, 160), replace(config, max_candidates=4))
    assert (len(everything.instances), everything.truncated) == (4, False)
    cut = detect_text(words, Size(96, 160), replace(config, max_candidates=3))
    assert (len(cut.instances), cut.truncated) == (3, True)
    tops = [instance.polygon[:, 1].min() for instance in everything.instances]
    assert tops == sorted(tops, reverse=True), "contours come bottom-up, so the limit drops the top of the page"


@pytest.mark.parametrize("shape", SHAPES)
def test_coordinates_are_those_of_the_picture_whatever_its_ratio(shape: Shape):
    words = page([(20, 40, 79, 49)])
    (small,) = detect_text(words, Size(96, 160), PostprocessConfig(shape=shape)).instances
    (large,) = detect_text(words, Size(96 * 7, 160 * 3), PostprocessConfig(shape=shape)).instances
    np.testing.assert_array_equal(large.polygon, small.polygon * [3, 7])
    assert large.polygon.dtype == np.float32


def test_a_quad_goes_clockwise_from_its_top_left_corner():
    (instance,) = detect_text(page([(20, 40, 79, 49)]), Size(96, 160), PostprocessConfig()).instances
    distance = math.floor(59 * 9 * 1.5 / (2 * (59 + 9)))  # whole pixels, and the rectangle's corners are on them
    left, top, right, bottom = 20 - distance, 40 - distance, 79 + distance, 49 + distance
    np.testing.assert_allclose(instance.polygon, [[left, top], [right, top], [right, bottom], [left, bottom]], atol=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_polygons_are_clipped_to_the_picture_edges_inclusive(shape: Shape):
    corners = page([(0, 0, 40, 8), (110, 85, 159, 95)])
    found = assert_same_as_reference(corners, Size(500, 1000), PostprocessConfig(shape=shape))
    points = np.concatenate([instance.polygon for instance in found.instances])
    np.testing.assert_array_equal(points.min(axis=0), [0, 0])
    np.testing.assert_array_equal(points.max(axis=0), [1000, 500])


@pytest.mark.parametrize("shape", SHAPES)
def test_coordinates_past_the_range_of_int16_survive(shape: Shape):
    strip = np.zeros((32, 40_000), np.float32)
    strip[10:20, 39_000:39_100] = 0.9
    found = assert_same_as_reference(strip, Size(64, 80_000), PostprocessConfig(shape=shape))
    (instance,) = found.instances
    assert instance.polygon[:, 0].min() == pytest.approx(78_000, abs=20)
    assert instance.polygon[:, 0].max() == pytest.approx(78_198, abs=20)


def test_a_kernel_whose_unclipped_ring_closes_around_a_hole_is_rejected():
    horseshoe = page([(40, 20, 100, 26), (40, 20, 46, 80), (94, 20, 100, 80), (40, 74, 68, 80), (72, 74, 100, 80)])
    config = PostprocessConfig(shape="polygon")
    assert len(assert_same_as_reference(horseshoe, Size(96, 160), config).instances) == 0
    assert len(detect_text(horseshoe, Size(96, 160), replace(config, unclip_ratio=0.5)).instances) == 1


@pytest.mark.parametrize(
    ("setting", "fewer"),
    [
        ({"score_threshold": 0.96}, True),
        ({"score_threshold": 0.94}, False),
        ({"binarize_threshold": 0.96}, True),
        ({"min_side": 9.5}, True),
        ({"min_side": 8.5}, False),
        ({"unclip_ratio": 0.001, "min_side": 8.0}, True),  # reaches min_side, but not min_side + 2 after unclipping
    ],
)
def test_thresholds_and_sizes_reject(setting: dict[str, Any], fewer: bool):
    found = detect_text(page([(20, 40, 79, 49)]), Size(96, 160), PostprocessConfig(**setting))
    assert len(found.instances) == (0 if fewer else 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_larger_unclip_ratio_gives_larger_polygons(shape: Shape):
    def area(ratio: float | None) -> float:
        config = PostprocessConfig(shape=shape, unclip_ratio=ratio)
        (instance,) = detect_text(page([(20, 40, 79, 49)]), Size(96, 160), config).instances
        return cv2.contourArea(instance.polygon)

    assert area(1.0) < area(None) < area(3.0)


@pytest.mark.parametrize("ratio", [0, -1.5, 101, math.inf, math.nan])
def test_unclip_ratios_that_make_no_sense_are_refused(ratio: float):
    with pytest.raises(ConfigError, match="unclip_ratio"):
        PostprocessConfig(unclip_ratio=ratio)


def test_a_larger_epsilon_gives_polygons_of_fewer_points():
    disc = cv2.circle(np.zeros((96, 160), np.float32), (80, 48), 30, 0.9, -1)
    fine, coarse = (
        detect_text(disc, Size(96, 160), PostprocessConfig(shape="polygon", polygon_epsilon=epsilon)).instances[0]
        for epsilon in (0.001, 0.05)
    )
    assert len(coarse.polygon) < len(fine.polygon)


def test_triangles_are_no_polygons_but_quads():
    triangle = cv2.fillPoly(np.zeros((96, 160), np.float32), [np.array([(10, 10), (90, 10), (10, 80)])], 0.9)
    config = PostprocessConfig(score_threshold=0.3, polygon_epsilon=0.02)
    assert len(detect_text(triangle, Size(96, 160), replace(config, shape="polygon")).instances) == 0
    assert len(detect_text(triangle, Size(96, 160), replace(config, shape="quad")).instances) == 1


def test_the_map_is_left_as_it_was_and_may_be_a_strided_view():
    words = np.repeat(page([(20, 40, 79, 49)]), 2, axis=1)
    view = words[:, ::2]
    before = words.copy()
    found = assert_same_as_reference(view, Size(96, 160), PostprocessConfig())
    assert len(found.instances) == 1
    np.testing.assert_array_equal(words, before)


def test_threads_do_not_share_memory(golden_maps: dict[str, npt.NDArray[np.float32]]):
    maps = [golden_maps["text0"], golden_maps["text1"], golden_maps["text3"]] * 10
    size = Size(500, 500)
    alone = [[i.score for i in detect_text(m, size, PostprocessConfig()).instances] for m in maps]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda m: [i.score for i in detect_text(m, size, PostprocessConfig()).instances], maps)
        )
    assert together == alone


@pytest.mark.parametrize(
    "probability_map", [np.zeros((1, 8, 8), np.float32), np.zeros((0, 8), np.float32), np.zeros((8, 8))]
)
def test_anything_but_a_float32_map_is_refused(probability_map: npt.NDArray[np.float32]):
    with pytest.raises(ValueError, match="float32"):
        detect_text(probability_map, Size(8, 8), PostprocessConfig())
