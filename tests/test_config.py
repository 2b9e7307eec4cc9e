from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcpu.config import (
    DetectorConfig,
    ModelConfig,
    PostprocessConfig,
    PreprocessConfig,
    config_from_mapping,
    config_to_mapping,
    read_config,
)
from dbcpu.errors import ConfigError, UsageError
from dbcpu.geometry import Size
from dbcpu.overrides import apply_overrides

CONFIGS = Path(__file__).parents[1] / "configs"
DETECTOR = DetectorConfig(model=ModelConfig(backbone="resnet18"))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_published_configuration_reads(path: Path):
    stated = read_config(path)
    assert stated.model["backbone"] in path.stem
    assert stated.postprocess["score_threshold"] in (0.5, 0.55, 0.6, 0.7)


@given(
    st.builds(
        PostprocessConfig,
        shape=st.sampled_from(["quad", "polygon"]),
        binarize_threshold=st.floats(0, 1),
        max_candidates=st.integers(1, 10_000),
        unclip_ratio=st.none() | st.floats(0.1, 10),
    )
)
def test_a_configuration_survives_the_way_through_a_mapping(postprocess: PostprocessConfig):
    config = DetectorConfig(model=ModelConfig(backbone="resnet50", deformable=True), postprocess=postprocess)
    assert config_from_mapping(DetectorConfig, config_to_mapping(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("postprocess: {score_treshold: 0.5}", "unknown key score_treshold"),
        ("postproces: {}", "unknown key postproces"),
        ("postprocess: {score_threshold: 1.5}", "score_threshold must be from 0 to 1, not 1.5"),
        ("postprocess: {score_threshold: high}", "score_threshold must be a number, not 'high'"),
        ("postprocess: {max_candidates: true}", "max_candidates must be a whole number, not True"),
        ("preprocess: {mean: [1, 2]}", "mean must be a list of 3 numbers, not [1, 2]"),
        ("preprocess: {resize: exact, height: 32}", "width must be given with 'exact'"),
        ("model: {backbone: resnet19}", "backbone must be one of resnet18"),
        ("model: [1]", "expected a mapping, found list"),
        ("- 1", "expected a mapping with the keys model"),
        ("a: [", "not valid YAML"),
        ("preprocess: {std: [1, 0, 1]}", "std must be above 0"),
    ],
)
def test_a_bad_configuration_is_an_error_that_names_file_key_and_value(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "postprocess: {score_threshold: 2001-99-99}",
        "preprocess: {short_side: " + "1" * 5000 + "}",
        "preprocess: {scale: " + "1" * 400 + "}",
        "[" * 5000,
        "model: {backbone: resnet18, inner_channels: 4000000000000}",
        "model: {backbone: resnet18, attention_channels: -1}",
    ],
    ids=lambda text: text[:30],
)
def test_values_that_python_itself_refuses_are_an_error_of_the_file(tmp_path: Path, text: str):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        read_config(tmp_path / "x.yaml")


def test_a_missing_configuration_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "none.yaml")


def test_overrides_choose_the_resize_rule():
    default = replace(
        DETECTOR, preprocess=PreprocessConfig(short_side=928, wide_short_side=1056, elongated_short_side=736)
    )
    by_side = apply_overrides(default, {"short_side": 160}).preprocess
    assert (by_side.short_side, by_side.wide_short_side, by_side.elongated_short_side) == (160, None, None)
    by_height = apply_overrides(DETECTOR, {"height": 800}).preprocess
    assert (by_height.resize, by_height.height) == ("height", 800)
    exact = apply_overrides(DETECTOR, {"size": Size(736, 1280)}).preprocess
    assert (exact.resize, exact.height, exact.width) == ("exact", 736, 1280)


def test_a_given_size_means_the_rule_of_the_original():
    foreign = PreprocessConfig(resize="fit", long_side=1333, rounding="nearest", resized_as="uint8", mean=(1, 2, 3))
    changed = apply_overrides(replace(DETECTOR, preprocess=foreign), {"short_side": 160}).preprocess
    assert (changed.resize, changed.rounding, changed.resized_as) == ("short_side", "up", "float32")
    assert changed.mean == (1, 2, 3)


@pytest.mark.parametrize("size", [96, (96,), "96x96"])
def test_a_size_is_a_height_and_a_width(size: Any):
    with pytest.raises(UsageError, match="size must be a height and a width"):
        apply_overrides(DETECTOR, {"size": size})


def test_an_override_that_is_none_changes_nothing():
    assert apply_overrides(DETECTOR, {"short_side": None, "score_threshold": None}) == DETECTOR


def test_two_sizes_exclude_each_other():
    with pytest.raises(UsageError, match="short_side and height exclude each other"):
        apply_overrides(DETECTOR, {"short_side": 1, "height": 2})


def test_a_mistyped_override_is_named():
    with pytest.raises(ConfigError, match="unknown key score_treshold"):
        apply_overrides(DETECTOR, {"score_treshold": 0.5})  # type: ignore[typeddict-unknown-key]


def test_the_unclip_ratio_follows_the_shape_unless_given():
    assert PostprocessConfig(shape="quad").effective_unclip_ratio == 1.5
    assert PostprocessConfig(shape="polygon").effective_unclip_ratio == 2.0
    assert PostprocessConfig(shape="polygon", unclip_ratio=1.0).effective_unclip_ratio == 1.0


def test_values_out_of_range_are_refused_where_a_configuration_is_built():
    with pytest.raises(ConfigError, match="short_side"):
        PreprocessConfig(short_side=0)
    with pytest.raises(ConfigError, match="deformable"):
        ModelConfig(backbone="mobilenet_v3_large", deformable=True)
