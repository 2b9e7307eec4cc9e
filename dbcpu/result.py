"""What a detection gives: text instances of one page, in the frame of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from dbcpu.geometry import Size

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TextInstance:
    """One accepted text region.

    Attributes:
        polygon: float32 (K, 2), K >= 3, (x, y) in image pixels, not closed; a quad starts at its top-left corner and
            goes clockwise.
        score: mean of the probability map over the shrunk region, in [0, 1].
    """

    polygon: npt.NDArray[np.float32]
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionResult:
    """All text instances of one page.

    Attributes:
        image: the picture's name as the caller gave it.
        page: number of the page in its file, from 1.
        image_size: size of the upright picture; the frame of all polygons.
        instances: in the order the original code returns them (contours come bottom-up).
        truncated: whether `max_candidates` cut the list of candidates.
        model: file name of the weights.
        settings: every setting that shaped the result, ready for JSON.
    """

    image: str
    page: int
    image_size: Size
    instances: tuple[TextInstance, ...]
    truncated: bool
    model: str
    settings: Mapping[str, object]
