"""Large pages read in tiles whose probability maps are blended into one.

A page of 10000 x 14000 pixels, shrunk to the size that networks were trained at, keeps nothing of its small print. Here
it is shrunk less, to its working size, and cut into overlapping tiles as wide as an ordinary page. Post-processing sees
one map, so a line that crosses the seams is one line.

Very tall text comes out in pieces. So the page is also looked at in coarser sizes, a quarter of the working size and so
on down to the ordinary one, and tall kernels are taken over from there.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np

from dbcpu.errors import ImageError, UsageError
from dbcpu.geometry import Size
from dbcpu.preprocess import NETWORK_MULTIPLE, content_size, normalise
from dbcpu.text_height import letter_height

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    import torch

    from dbcpu.config import PreprocessConfig

    Pixels = npt.NDArray[np.uint8]
    ProbabilityMap = npt.NDArray[np.float32]
    # From normalised input (1, 3, H, W) to the probability map (H, W).
    Run = Callable[[torch.Tensor], ProbabilityMap]

# How many times larger than the network's ordinary input a page is read: a number, or what `choose_factor` finds.
Tile: TypeAlias = float | Literal["auto", "off"]

logger = logging.getLogger(__name__)

LARGEST_FACTOR = 8.0  # that "auto" chooses
_MUCH_LARGER = 2  # times the ordinary input, so that ordinary scans lose no time to being looked at
_LOW_LETTERS = 5.0  # network pixels without ascenders; lower ones run into each other
_GOOD_LETTERS = 8.0
_LEAST_FACTOR = 1.5  # less is not worth several tiles
MAX_WORKING_PIXELS = 128_000_000  # the map takes 4 bytes for each, the picture 3
LARGEST_TILE = 10_000  # times; with more, no page but the tiniest stays below that
_OVERLAP = 128  # pixels of the working size, give or take 32
_COARSER = 4  # from one size to the next; networks read letters over a range wider than this
# Kernels of the coarser size are taken over from half a height of so many of its pixels on, where the finer size has
# one not much lower: under tall lines that measured 0.5 to 1.7 of it. Small lines that ran together are mostly of less
# than 5 pixels, and what is under them measured 0 to 0.8. Very tall ones are in scraps at the finer size, which cover
# little of them.
_TALL, _AS_TALL = 5.0, 0.47
_VERY_TALL, _SCRAPS = 7.0, 0.25
_BLANK = 3  # grey levels; on real pages pressed into fewer, no probability came above 0.2, into four 0.34


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledInput:
    """A page to be read in tiles.

    Attributes:
        pixels: uint8 (*network_size, 3), blue first: the page at its working size.
        factor: how many times larger than the network's ordinary input that is, above 1.
        ordinary_size: of the network's ordinary input, without padding.
        network_size: of the working size; both sides are multiples of 32.
        content_size: the same, as there is no padding.
        image_size: of the picture it was made from.
        config: how tiles are normalised.
    """

    pixels: Pixels
    factor: float
    ordinary_size: Size
    network_size: Size
    content_size: Size
    image_size: Size
    config: PreprocessConfig


def check_tile(tile: Tile) -> None:
    """Refuse what is none of "auto", "off" and a number from 1 to 10000.

    Raises:
        UsageError: it is not.
    """
    if tile in ("auto", "off"):
        return
    if not isinstance(tile, Real) or not 1 <= tile <= LARGEST_TILE:
        raise UsageError(f"tile must be auto, off or a number from 1 to {LARGEST_TILE}, not {tile!r}")


def choose_factor(pixels_bgr: Pixels, config: PreprocessConfig) -> float:
    """Decide how many times larger than ordinary a page should be read; 1 where its letters are tall enough as it is.

    That is from 5 pixels in the network's input, without ascenders; where they would be lower, the factor makes them 8.
    Only pages whose short side is more than twice that of the input are looked at, and none is enlarged, nor read at a
    size that `preprocess_tiles` refuses.

    Args:
        pixels_bgr: uint8 (H, W, 3).
        config: of the network's ordinary input.

    Returns:
        1, or up to 8.
    """
    image_size = Size(*pixels_bgr.shape[:2])
    ordinary = content_size(config, image_size)
    ordinary_side = min(ordinary)
    shrink = min(image_size) / ordinary_side
    if shrink <= _MUCH_LARGER:
        return 1.0
    height = letter_height(pixels_bgr, round(min(shrink, LARGEST_FACTOR) * ordinary_side))
    if height is None or height / shrink >= _LOW_LETTERS:
        return 1.0
    affordable = math.sqrt(MAX_WORKING_PIXELS / math.prod(ordinary))
    factor = min(_GOOD_LETTERS / (height / shrink), shrink, LARGEST_FACTOR, affordable)
    if factor < _LEAST_FACTOR:
        return 1.0
    factor = round(factor, 1)
    while math.prod(_times(ordinary, factor)) > MAX_WORKING_PIXELS:  # by rounding its sides up
        factor = round(factor - 0.1, 1)
    return factor


def preprocess_tiles(pixels_bgr: Pixels, config: PreprocessConfig, factor: float, *, name: str = "image") -> TiledInput:
    """Resize a page to `factor` times the network's ordinary input.

    Args:
        pixels_bgr: uint8 (H, W, 3), blue first.
        config: of the network's ordinary input.
        factor: from 1 to 10000.
        name: of the picture, for messages.

    Raises:
        ImageError: the page would not fit into memory at that size.
    """
    image_size = Size(*pixels_bgr.shape[:2])
    ordinary = content_size(config, image_size)
    working = _times(ordinary, factor)
    if working.height * working.width > MAX_WORKING_PIXELS:
        what = f"at {factor:g} times the ordinary size the page would have {working.width}x{working.height} pixels"
        limit = f"over the limit of {MAX_WORKING_PIXELS // 1_000_000} megapixels"
        raise ImageError(f"{what}, {limit}", where=name, remedy="choose a smaller --tile")
    return TiledInput(
        pixels=_resized(pixels_bgr, working),
        factor=factor,
        ordinary_size=ordinary,
        network_size=working,
        content_size=working,
        image_size=image_size,
        config=config,
    )


def _times(size: Size, factor: float) -> Size:
    height, width = (math.ceil(side * factor / NETWORK_MULTIPLE) * NETWORK_MULTIPLE for side in size)
    return Size(height, width)


def _resized(pixels: Pixels, size: Size) -> Pixels:
    # Tiles are none of the original's business, so its resize, which skips pixels, need not be kept here.
    shrinks = size.height <= pixels.shape[0] and size.width <= pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size.width, size.height), interpolation=interpolation), np.uint8)


def read_tiles(page: TiledInput, run: Run, *, threshold: float) -> ProbabilityMap:
    """Run the network over a page at its working size and at coarser ones.

    Args:
        page: from `preprocess_tiles`.
        run: the network.
        threshold: above which a pixel belongs to a kernel.

    Returns:
        The probability map at the working size, float32 (*network_size).
    """
    side = min(_times(page.ordinary_size, 1))
    pixels, factor = page.pixels, page.factor
    probability = _blended(pixels, side, page.config, run)
    while factor > 1:
        factor = factor / _COARSER if factor / _COARSER >= _LEAST_FACTOR else 1
        pixels = _resized(pixels, _times(page.ordinary_size, factor))
        _take_tall_kernels(probability, _blended(pixels, side, page.config, run), threshold)
    return probability


def _blended(pixels: Pixels, side: int, config: PreprocessConfig, run: Run) -> ProbabilityMap:
    """Return the map of a picture from its tiles, each of which counts less towards its seams."""
    started = time.perf_counter()
    height, width = pixels.shape[:2]
    rows, columns = list(_spans(height, side)), list(_spans(width, side))
    probability = np.zeros((height, width), np.float32)
    blank = 0
    for top, weights_down in rows:
        for left, weights_across in columns:
            tile = pixels[top : top + side, left : left + side]
            if _is_blank(tile):
                blank += 1
                continue
            tile_map = run(normalise(tile, config, Size(*tile.shape[:2])))
            probability[top : top + side, left : left + side] += tile_map * weights_down[:, None] * weights_across
    logger.info(
        "network: %d ms for %d tiles of %dx%d, %d blank ones left out",
        *(round((time.perf_counter() - started) * 1000), len(rows) * len(columns) - blank, side, side, blank),
    )
    return np.minimum(probability, 1, out=probability)  # the weights add up to 1 but for rounding


def _is_blank(tile: Pixels) -> bool:
    channels = tile.reshape(-1, 3)
    return bool((channels.max(axis=0) - channels.min(axis=0) < _BLANK).all())


def _spans(length: int, side: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Cut a length into spans that overlap.

    Args:
        length: multiple of 32.
        side: of a span, multiple of 32; a shorter length is one span.

    Yields:
        The start of a span, a multiple of 32, and the weight of each of its pixels; those of all spans add up to 1.
    """
    side = min(side, length)
    overlap = min(_OVERLAP, side // 2)
    count = 1 if side == length else math.ceil((length - overlap) / (side - overlap))
    steps = {(length - side) // NETWORK_MULTIPLE * index // max(1, count - 1) for index in range(count)}
    starts = [step * NETWORK_MULTIPLE for step in sorted(steps)]
    hill = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32)
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + side] += hill
    for start in starts:
        yield start, hill / total[start : start + side]


def _take_tall_kernels(fine: ProbabilityMap, coarse: ProbabilityMap, threshold: float) -> None:
    """Raise the finer map, in place, to the coarser one of the same page under the tall kernels of that.

    Where small lines ran into one kernel at the coarser size, those of the finer one are much lower, and stay.
    """
    is_kernel = (coarse > threshold).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(is_kernel)
    depth = cv2.distanceTransform(is_kernel, cv2.DIST_L2, 3)
    np.minimum(depth, sum(coarse.shape), out=depth)  # where all of the map is a kernel, OpenCV gives 3e38
    down, across = (f / c for f, c in zip(fine.shape, coarse.shape, strict=True))
    for label in np.unique(labels[depth >= _TALL]):
        left, top, width, height, _ = stats[label].tolist()
        window = np.s_[top : top + height, left : left + width]
        rows = slice(round(top * down), round((top + height) * down))
        columns = slice(round(left * across), round((left + width) * across))
        inside = fine[rows, columns]
        kernel = np.where(labels[window] == label, coarse[window], 0)
        kernel = cv2.resize(kernel, inside.shape[::-1], interpolation=cv2.INTER_LINEAR)
        finer = (np.minimum(inside, kernel) > threshold).view(np.uint8)
        tall = depth[window][labels[window] == label].max()
        as_tall = cv2.distanceTransform(finer, cv2.DIST_L2, 3).max() >= _AS_TALL * tall * down
        if as_tall or (tall >= _VERY_TALL and finer.sum() < _SCRAPS * (kernel > threshold).sum()):
            np.maximum(inside, kernel, out=inside)
