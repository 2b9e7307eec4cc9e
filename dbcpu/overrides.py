"""Settings given for one run, on top of what the weights and the configuration say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from dbcpu.config import overlay
from dbcpu.errors import UsageError

if TYPE_CHECKING:
    from dbcpu.config import DetectorConfig, PreprocessConfig, Shape
    from dbcpu.geometry import Size


class Overrides(TypedDict, total=False):
    """One setting each; what is left out, or None, stays as it is.

    `short_side`, `height` and `size` choose the resize rule too, so at most one of them can be given. The others are
    the fields of `PostprocessConfig`.
    """

    short_side: int | None
    height: int | None
    size: Size | None
    shape: Shape | None
    binarize_threshold: float | None
    score_threshold: float | None
    unclip_ratio: float | None
    max_candidates: int | None
    min_side: float | None
    polygon_epsilon: float | None


_RESIZE = ("short_side", "height", "size")


def apply_overrides(config: DetectorConfig, overrides: Overrides) -> DetectorConfig:
    """Return `config` with the given settings in place.

    Raises:
        UsageError: two sizes at once, or a `size` that is none.
        ConfigError: a setting of an unknown name, of the wrong type or out of range.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    sizes = [name for name in _RESIZE if name in given]
    if len(sizes) > 1:
        raise UsageError(f"{' and '.join(sizes)} exclude each other", remedy="give the one that should decide")
    # A size that is given means the original's rule for it, whatever the family of the weights does by itself.
    stated: dict[str, object] = {}
    if sizes:
        stated = {"rounding": "up", "resized_as": "float32", "wide_short_side": None, "elongated_short_side": None}
    if "size" in given:
        size = given["size"]
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise UsageError(f"size must be a height and a width, not {size!r}")
        stated |= {"resize": "exact", "height": size[0], "width": size[1]}
    elif sizes:
        stated |= {"resize": sizes[0], sizes[0]: given[sizes[0]]}
    postprocess = {name: value for name, value in given.items() if name not in _RESIZE}
    preprocess: PreprocessConfig = overlay(config.preprocess, stated)
    return replace(config, preprocess=preprocess, postprocess=overlay(config.postprocess, postprocess))
