"""How tall the letters of a page are, by its ink alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Grey = npt.NDArray[np.uint8]

# Letters are counted at the reduction of the page that makes them this tall: an octave, so that halving the page time
# after time counts each of them once, and neither the grain of the paper nor pieces of large letters pass for text.
_LOWEST, _TALLEST = 6, 12
_SURROUNDINGS = 31  # pixels; what is darker than their mean is ink
_FAINTEST = 12  # grey levels darker than that
_SHARE_OF_STRONG = 0.4  # of the strongest ink, the darkest half percent of the page
_SMALLEST_SIDE = 200  # pixels; a page reduced further shows no lines
_FEWEST = 30  # letters; fewer say nothing of a page
_BAND_PIXELS = 4_000_000


def letter_height(pixels_bgr: npt.NDArray[np.uint8], finest_side: int) -> float | None:
    """Estimate the height of letters without ascenders, the median over the length of the text.

    Args:
        pixels_bgr: uint8 (H, W, 3), dark ink on something lighter.
        finest_side: the short side that the page is reduced to first, in pixels; letters lower than 6 pixels there are
            not seen.

    Returns:
        Pixels of the picture, or None where there is too little that looks like letters.
    """
    heights = np.sort(np.concatenate([np.empty(0), *_letters(pixels_bgr, finest_side)]))
    if len(heights) < _FEWEST:
        return None
    length = np.cumsum(heights)  # a letter is about as wide as it is tall
    return float(heights[np.searchsorted(length, length[-1] / 2)])


def _letters(pixels_bgr: npt.NDArray[np.uint8], finest_side: int) -> Iterator[npt.NDArray[np.float64]]:
    """Give the heights of what may be letters, in pixels of the picture, reduction by reduction."""
    height, width = pixels_bgr.shape[:2]
    grey: Grey = pixels_bgr[..., 1]
    shrink = min(1.0, finest_side / min(height, width))
    if shrink < 1:
        grey = _reduced(grey, shrink)
    while min(grey.shape) >= _SMALLEST_SIDE:
        darker = cv2.subtract(cv2.blur(grey, (_SURROUNDINGS, _SURROUNDINGS)), grey)
        strong = np.percentile(darker[::4, ::4], 99.5)
        is_ink = (darker > max(_FAINTEST, _SHARE_OF_STRONG * strong)).view(np.uint8)
        rows = max(_SURROUNDINGS, _BAND_PIXELS // grey.shape[1])  # labels take 4 bytes a pixel
        for top in range(0, len(is_ink), rows):
            *_, stats, _ = cv2.connectedComponentsWithStats(is_ink[top : top + rows])
            w, h, area = (stats[1:, column] for column in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
            like_letters = (h >= _LOWEST) & (h < _TALLEST) & (w >= 2) & (w <= 3 * h) & (area < 0.9 * w * h)
            yield h[like_letters] * (height / grey.shape[0])
        grey = _reduced(grey, 0.5)


def _reduced(grey: Grey, share: float) -> Grey:
    size = [max(1, round(side * share)) for side in reversed(grey.shape)]
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
