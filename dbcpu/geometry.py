"""Sizes: the one way a height and a width travel together."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Height and width in pixels, in this order, as in array shapes."""

    height: int
    width: int

    @property
    def short_side(self) -> int:
        """The smaller of the two sides."""
        return min(self)
