"""Sizes, the one way a height and a width travel together, and polygons that share one array."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

    Number = TypeVar("Number", bound=np.generic)


class Size(NamedTuple):
    """Height and width in pixels, in this order, as in array shapes."""

    height: int
    width: int


def split_rings(points: npt.NDArray[Number], counts: Iterable[int]) -> list[npt.NDArray[Number]]:
    """Return views of the polygons of `counts` points each that stand one after the other in `points`, shape (P, 2)."""
    return [points[start:end] for start, end in pairwise(accumulate(counts, initial=0))]
