"""Configuration: one frozen dataclass per stage, read from and written to plain mappings.

The same mappings stand in the YAML files of `configs/` and in the metadata of a model file.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from dbcpu.errors import ConfigError

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v3_large"]
OffsetStride = Literal["original", "strided"]
OffsetStrideChoice = Literal["auto", "original", "strided"]
Attention = Literal["none", "scale_spatial", "scale_channel_spatial", "scale_channel"]
Shape = Literal["quad", "polygon"]
Neck = Literal["original", "smoothed"]
ResizeRule = Literal["short_side", "height", "exact", "fit"]

NETWORK_MULTIPLE = 32  # the deepest feature map, C5, is 1/32 of the network's input
_WIDEST = 1 << 14  # channels; of a damaged file before anything of their size is made
ORIGINAL_MEAN = (122.67891434, 116.66876762, 104.00698793)  # original: named RGB, subtracted from B, G, R


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a network; everything here can be read off its weights, but for `offset_stride` in rare cases.

    Attributes:
        backbone: ResNet depth, or MobileNetV3-large.
        deformable: whether layers 2-4 of the ResNet have deformable 3x3 convolutions.
        modulated: whether these have a mask beside their offsets.
        offset_stride: what `conv2_offset` of the three stride-2 bottlenecks does. "original": stride 1, its memory
            read with the output's plane size, as the CUDA code does; "strided": stride 2. Without effect on ResNet-18
            and -34.
        neck: the feature pyramid: "original", or "smoothed", that of DBNet.pytorch, whose levels are smoothed before
            they feed the next one down.
        inner_channels: width of the concatenated levels, each of which has a quarter of it.
        decoder_bias: whether the plain convolutions of the original's neck and heads have biases.
        head_bias: whether the first convolution of the probability head has one.
        attention: the adaptive scale fusion (ASF) of DB++.
        attention_channels: its width; without effect where `attention` is "none".
        threshold_head: whether the threshold head, which only training uses, is there.
        serial: whether the threshold head also takes the probability map.
    """

    backbone: Backbone
    deformable: bool = False
    modulated: bool = True
    offset_stride: OffsetStride = "original"
    neck: Neck = "original"
    inner_channels: int = 256
    decoder_bias: bool = False
    head_bias: bool = False
    attention: Attention = "none"
    attention_channels: int = 64
    threshold_head: bool = False
    serial: bool = False

    def __post_init__(self) -> None:
        _require(0 < self.inner_channels <= _WIDEST, "inner_channels", f"from 4 to {_WIDEST}", self)
        _require(self.inner_channels % 4 == 0, "inner_channels", "a multiple of 4", self)
        _require(0 < self.attention_channels <= _WIDEST, "attention_channels", f"from 1 to {_WIDEST}", self)
        _require(not self.deformable or self.backbone.startswith("resnet"), "deformable", "false with MobileNet", self)


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """From a picture to the network's input.

    `input = float32((resized - mean) / std) / scale`, with the inner part in float64 and the last division in float32,
    which is what the original code computes bit for bit.

    Attributes:
        resize: "short_side": the short side becomes `short_side`, the other one keeps the ratio, rounded up to a
            multiple of 32 (the original's demo); "height": the same with the height (its evaluation); "exact": `width`
            x `height`, whatever the ratio; "fit": as large as `short_side` and `long_side` allow, ratio kept, then
            padded with zeros to multiples of 32 at the right and the bottom (mmocr).
        short_side: target of resize "short_side" and limit of "fit", in pixels.
        wide_short_side: of resize "short_side", in pixels: a picture at most 1.1 times as high as wide, as no upright
            sheet of paper is, keeps what pixels it has beyond `short_side`, up to this one; None treats it as others.
        elongated_short_side: of resize "short_side", in pixels: a picture more elongated than a sheet of paper, 1 to
            the root of 2, gets as many pixels as a sheet, until its short side is this one; None treats it as others.
        long_side: limit of resize "fit", in pixels.
        height: target of resize "height" and "exact", in pixels.
        width: target of resize "exact", in pixels.
        rounding: of the sides to multiples of 32: "up" rounds the free side, "nearest" rounds both (DBNet.pytorch).
        resized_as: what is interpolated: "float32" pixels, or "uint8" ones, which rounds to grey levels.
        channels: order of the channels that the network takes.
        mean: subtracted per channel, in the order of `channels`, in grey levels of 0-255.
        std: divisor per channel, in the order of `channels`.
        scale: last divisor of all channels.
    """

    resize: ResizeRule = "short_side"
    short_side: int = 736
    wide_short_side: int | None = None
    elongated_short_side: int | None = None
    height: int | None = None
    width: int | None = None
    long_side: int | None = None
    rounding: Literal["up", "nearest"] = "up"
    resized_as: Literal["float32", "uint8"] = "float32"
    channels: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = ORIGINAL_MEAN
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 255.0

    def __post_init__(self) -> None:
        for name in ("short_side", "wide_short_side", "elongated_short_side", "height", "width", "long_side"):
            value = getattr(self, name)
            _require(value is None or 1 <= value <= 1 << 16, name, "from 1 to 65536", self)
        needs_height = self.resize in ("height", "exact")
        _require(not needs_height or self.height is not None, "height", f"given with {self.resize!r}", self)
        _require(self.resize != "fit" or self.long_side is not None, "long_side", "given with 'fit'", self)
        _require(self.resize != "exact" or self.width is not None, "width", "given with 'exact'", self)
        _require(all(map(math.isfinite, self.mean)), "mean", "finite", self)
        _require(all(s > 0 and math.isfinite(s) for s in self.std), "std", "above 0", self)
        _require(self.scale > 0 and math.isfinite(self.scale), "scale", "above 0", self)


@dataclass(frozen=True, kw_only=True)
class PostprocessConfig:
    """From a probability map to text instances.

    Attributes:
        shape: "quad": rotated rectangles of four corners; "polygon": outlines of any number of points.
        binarize_threshold: a pixel above it belongs to a kernel, in [0, 1].
        score_threshold: candidates with a lower mean probability are dropped, in [0, 1].
        max_candidates: contours looked at, before any filter.
        quad_of: what a quad is the minimum-area rectangle of: "contour", which is then unclipped, or "polygon", the
            text instance that the shape "polygon" would give (mmocr, the default model).
        score_over: the pixels whose mean is the score: those of the "candidate", a rectangle or a simplified outline,
            or of the whole "contour" (DBNet.pytorch).
        min_side: shortest side of a kernel's rectangle in network pixels; after unclipping, `min_side + 2`. Kernels of
            polygons have no limit.
        unclip_ratio: r' of `D' = A' * r' / L'`; None is the original's choice, 1.5 for quads and 2.0 for polygons.
        polygon_epsilon: tolerance of the outline's simplification, as a share of its perimeter.
    """

    shape: Shape = "quad"
    binarize_threshold: float = 0.3
    score_threshold: float = 0.6
    max_candidates: int = 1000
    quad_of: Literal["contour", "polygon"] = "contour"
    score_over: Literal["candidate", "contour"] = "candidate"
    min_side: float = 3.0
    unclip_ratio: float | None = None
    polygon_epsilon: float = 0.002

    def __post_init__(self) -> None:
        for name in ("binarize_threshold", "score_threshold"):
            _require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", self)
        _require(self.max_candidates >= 1, "max_candidates", "at least 1", self)
        _require(0 <= self.min_side < math.inf, "min_side", "at least 0", self)
        ratio = self.unclip_ratio  # past the limit every polygon is the whole page, and its arcs take seconds to draw
        _require(ratio is None or 0 < ratio <= 100, "unclip_ratio", "above 0 and at most 100", self)
        _require(0 <= self.polygon_epsilon < 1, "polygon_epsilon", "from 0 to below 1", self)

    @property
    def effective_unclip_ratio(self) -> float:
        """`unclip_ratio`, or the original's value for this shape."""
        if self.unclip_ratio is not None:
            return self.unclip_ratio
        return 1.5 if self.shape == "quad" else 2.0


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """All that inference needs beside the tensors."""

    model: ModelConfig
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)


def _require(holds: bool, name: str, expected: str, config: object) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, not {getattr(config, name)!r}")


Config = TypeVar("Config", ModelConfig, PreprocessConfig, PostprocessConfig, DetectorConfig)


def config_from_mapping(kind: type[Config], mapping: object, *, where: object = None, section: str = "") -> Config:
    """Build a configuration from a plain mapping, as YAML or JSON gives it.

    Args:
        kind: the dataclass to build.
        mapping: keys are field names; fields left out keep their defaults.
        where: the file it came from, for messages.
        section: dotted path of the mapping in that file, for messages.

    Raises:
        ConfigError: not a mapping, an unknown key, a missing one, or a value of the wrong type or range.
    """
    place = f"{where}, {section}" if where and section else (where or section or None)
    if not isinstance(mapping, dict):
        raise ConfigError(f"expected a mapping, found {type(mapping).__name__}", where=place)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = [str(key) for key in mapping if key not in fields]
    if unknown:
        raise ConfigError(f"unknown key {', '.join(unknown)}", where=place, remedy=f"known keys: {', '.join(fields)}")
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in required if name not in mapping]
    if missing:
        raise ConfigError(f"missing key {', '.join(missing)}", where=place)
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        inner = f"{section}.{key}" if section else key
        if dataclasses.is_dataclass(hints[key]):
            values[key] = config_from_mapping(hints[key], value, where=where, section=inner)
            continue
        try:
            values[key] = _typed(value, hints[key])
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"{key} must be {error}, not {value!r}", where=place) from None
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(error.what, where=place) from None


def _typed(value: Any, hint: Any) -> Any:
    """Return `value` as `hint` says; the error's text completes "must be ...". `bool` is no number here."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in choices or isinstance(value, bool):
            raise ValueError("one of " + ", ".join(map(str, choices)))
        return value
    if origin in (types.UnionType, typing.Union):  # every union here is `X | None`
        return None if value is None else _typed(value, next(c for c in choices if c is not type(None)))
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(choices):
            raise TypeError(f"a list of {len(choices)} numbers")
        return tuple(_typed(v, c) for v, c in zip(value, choices, strict=True))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise TypeError({bool: "true or false", int: "a whole number", float: "a number"}.get(hint, f"a {hint.__name__}"))


def config_to_mapping(config: ModelConfig | PreprocessConfig | PostprocessConfig | DetectorConfig) -> dict[str, Any]:
    """Return the configuration as nested plain mappings and lists, ready for JSON or YAML, every field named."""
    plain = dataclasses.asdict(config)

    def lists(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: lists(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return typing.cast("dict[str, Any]", lists(plain))


@dataclass(frozen=True, kw_only=True)
class StatedConfig:
    """What a YAML file states: any part of a detector's configuration, each key checked, none filled in.

    Attributes:
        path: the file.
        model: fields of `ModelConfig`, to be compared with what the weights say.
        preprocess: fields of `PreprocessConfig`.
        postprocess: fields of `PostprocessConfig`.
    """

    path: Path
    model: dict[str, Any]
    preprocess: dict[str, Any]
    postprocess: dict[str, Any]


def read_config(path: Path) -> StatedConfig:
    """Read a YAML file such as those in `configs/`.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or holds an unknown key or a bad value.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration: {error}", where=path) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of dates and digits that YAML takes, Python not
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=path) from None
    sections: dict[str, Any] = {"model": {}, "preprocess": {}, "postprocess": {}}
    if not isinstance(document, dict):
        raise ConfigError(f"expected a mapping with the keys {', '.join(sections)}", where=path)
    unknown = [str(key) for key in document if key not in sections]
    if unknown:
        raise ConfigError(f"unknown key {', '.join(unknown)}", where=path, remedy=f"known keys: {', '.join(sections)}")
    sections.update(document)
    # Checked on top of some complete configuration: a file may leave anything to the weights.
    overlay(ModelConfig(backbone="resnet18"), sections["model"], where=path, section="model")
    overlay(PreprocessConfig(), sections["preprocess"], where=path, section="preprocess")
    overlay(PostprocessConfig(), sections["postprocess"], where=path, section="postprocess")
    return StatedConfig(path=path, **sections)


Stage = TypeVar("Stage", ModelConfig, PreprocessConfig, PostprocessConfig)


def overlay(base: Stage, stated: object, *, where: object = None, section: str = "") -> Stage:
    """Return `base` with the fields that the mapping `stated` gives, checked like any configuration.

    Raises:
        ConfigError: as `config_from_mapping`.
    """
    if not isinstance(stated, dict):
        return config_from_mapping(type(base), stated, where=where, section=section)
    return config_from_mapping(type(base), {**config_to_mapping(base), **stated}, where=where, section=section)
