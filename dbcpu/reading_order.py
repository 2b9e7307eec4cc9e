"""The order in which a person would read the text instances of a page.

The original code returns instances as contours come, bottom-up. Two orders are offered instead: `ltr`, lines from left
to right below each other, in columns from left to right; and `rtl-vertical`, the same turned by 90 degrees: lines run
downwards and follow each other from right to left, as in Chinese and Japanese books. Both are found by these steps, in
a frame where lines run along the first axis and follow each other along the second:

1. The page is straightened by the median tilt of its long instances.
2. Vertical pages are cut at empty bands from top to bottom, wider than a few lines: the gutter between two pages.
3. Words are joined to lines where one follows the other at its height, closer than a line is thick.
4. Columns are parted at the gutter with the most lines beside it that none crosses; what is above it is read before,
   what is below after. Each side needs three lines at the heights of the other's, most of them long: the halves of
   verses, the prices of a receipt and notes in a margin are no columns.
5. What has no gutter is read row by row.

Nothing of this knows the text, so tables with long cells are read column by column.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbcpu.result import DetectionResult

ReadingOrder = Literal["none", "ltr", "rtl-vertical"]

Indices: TypeAlias = npt.NDArray[np.intp]
# (N, 4): start and end along the lines, near and far side across them.
Extents: TypeAlias = npt.NDArray[np.float64]

# All but the first two in thicknesses of lines.
_COLUMN_LINES = 3  # lines on each side of a gutter, at least
_LARGEST_TILT = np.deg2rad(20)
_LONG = 3  # instances from this length on tell the tilt of the page
_COLUMN_LENGTH = 8  # lines of a column are this long; verses are halved at 5 or 7 characters
_GUTTER = 0.5  # between columns, at least
_PAGE_GUTTER = 2.5  # between two pages of vertical lines, at least
_WORD_GAP = 0.8  # between two words of a line, at most


def in_reading_order(result: DetectionResult, order: ReadingOrder) -> DetectionResult:
    """Return the result with its instances in another order, which its settings name; `none` changes nothing."""
    if order == "none":
        return result
    sequence = reading_sequence([instance.polygon for instance in result.instances], order)
    instances = tuple(result.instances[index] for index in sequence)
    return dataclasses.replace(result, instances=instances, settings={**result.settings, "order": order})


def reading_sequence(polygons: Sequence[npt.NDArray[np.float32]], order: Literal["ltr", "rtl-vertical"]) -> list[int]:
    """Return the indices of the polygons in the order they are read.

    Args:
        polygons: (K, 2) each, (x, y) in any one frame.
        order: `ltr` for lines from left to right, `rtl-vertical` for lines downwards that follow from right to left.
    """
    if not polygons:
        return []
    is_vertical = order == "rtl-vertical"
    outlines = [p[:, ::-1] * [1.0, -1.0] if is_vertical else p.astype(np.float64) for p in polygons]
    words = _straightened_extents(outlines)
    pages = _cut_at_page_gutters(words) if is_vertical else [np.arange(len(words))]
    return [int(page[word]) for page in pages for word in _read_page(words[page])]


def _straightened_extents(outlines: list[npt.NDArray[np.float64]]) -> Extents:
    angles, lengths = zip(*(_tilt(outline) for outline in outlines), strict=True)
    tilt = _weighted_median(np.array(angles), np.array(lengths))
    back = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    level = [outline @ back for outline in outlines]
    return np.array([[*p.min(axis=0), *p.max(axis=0)] for p in level])[:, [0, 2, 1, 3]]


def _tilt(outline: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the angle of the outline's long axis and how much it counts: as its length, or 0 if it tells nothing."""
    variances, axes = np.linalg.eigh(np.cov(outline.T, bias=True))
    along = axes[:, 1]
    angle = float(np.arctan(along[1] / along[0])) if along[0] else np.pi / 2
    is_long = variances[1] > _LONG**2 * max(variances[0], 0)
    return angle, float(np.sqrt(variances[1])) if is_long and abs(angle) <= _LARGEST_TILT else 0.0


def _weighted_median(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    if not weights.any():
        return 0.0
    by_value = values.argsort()
    total = weights[by_value].cumsum()
    return float(values[by_value][np.searchsorted(total, total[-1] / 2)])


def _cut_at_page_gutters(words: Extents) -> list[Indices]:
    """Return the indices of the words of each page, pages as they follow each other."""
    by_near = words[:, 2].argsort(kind="stable")
    reached = np.maximum.accumulate(words[by_near, 3])
    empty = words[by_near[1:], 2] - reached[:-1]
    return np.split(by_near, np.flatnonzero(empty > _PAGE_GUTTER * _thickness(words)) + 1)


def _thickness(extents: Extents) -> float:
    return float(np.median(extents[:, 3] - extents[:, 2]))


def _read_page(words: Extents) -> list[int]:
    """Return the indices of the words as they are read."""
    lines = _join_words(words)
    starts_near = np.array([words[line][:, [0, 2]].min(axis=0) for line in lines])
    ends_far = np.array([words[line][:, [1, 3]].max(axis=0) for line in lines])
    extents = np.concatenate([starts_near, ends_far], axis=1)[:, [0, 2, 1, 3]]
    by_height = (extents[:, 2] + extents[:, 3]).argsort(kind="stable")
    return [word for line in _read_columns(extents, by_height) for word in lines[line]]


def _read_columns(extents: Extents, lines: Indices) -> Iterator[int]:
    """Yield `lines`, indices sorted by their height, as they are read."""
    parts = _part_at_gutter(extents[lines])
    if parts is None:
        yield from _read_rows(extents, lines)
    else:
        for part in parts:
            yield from _read_columns(extents, lines[part])


def _part_at_gutter(extents: Extents) -> tuple[Indices, ...] | None:
    """Return which lines, sorted by height, are above the best gutter, left, right and below; None without a gutter."""
    if len(extents) < 2 * _COLUMN_LINES:
        return None
    thickness = _thickness(extents)
    start, end = extents[:, 0], extents[:, 1]
    best: tuple[Indices, ...] | None = None
    most = 0
    for position in np.unique(end)[:-1]:
        is_left = end <= position
        is_right = (start >= position + _GUTTER * thickness) & ~is_left  # both, where nothing has an extent
        # Lines that cross part the page into stretches with a gutter each.
        stretch = np.cumsum(~(is_left | is_right))
        fewest = np.minimum(
            np.bincount(stretch[is_left], minlength=len(extents) + 1),
            np.bincount(stretch[is_right], minlength=len(extents) + 1),
        )
        for number in np.flatnonzero(fewest >= _COLUMN_LINES):
            beside = stretch == number
            left, right = np.flatnonzero(beside & is_left), np.flatnonzero(beside & is_right)
            if len(left) + len(right) > most and _are_columns(extents[left], extents[right], thickness):
                first = min(left[0], right[0])
                last = max(left[-1], right[-1])
                best = np.arange(first), left, right, np.arange(last + 1, len(extents))
                most = len(left) + len(right)
    return best


def _are_columns(left: Extents, right: Extents, thickness: float) -> bool:
    """Tell whether both sides have enough lines at the heights of the other one's, and long ones."""
    near = max(left[:, 2].min(), right[:, 2].min())
    far = min(left[:, 3].max(), right[:, 3].max())
    return all(
        np.count_nonzero((side[:, 2] < far) & (side[:, 3] > near)) >= _COLUMN_LINES
        and np.median(side[:, 1] - side[:, 0]) >= _COLUMN_LENGTH * thickness
        for side in (left, right)
    )


def _read_rows(extents: Extents, lines: Indices) -> Iterator[int]:
    """Yield `lines`, indices sorted by their height: from the start of each row to its end."""
    row: list[int] = []
    for line in lines.tolist():
        if row and not _stands_in_row(extents[line], extents[row]):
            yield from sorted(row, key=lambda index: extents[index, 0])
            row = []
        row.append(line)
    yield from sorted(row, key=lambda index: extents[index, 0])


def _stands_in_row(line: npt.NDArray[np.float64], row: Extents) -> bool:
    """Tell whether the line is beside those of the row: mostly at their height, and not above or below one."""
    across = np.minimum(line[3], row[:, 3]) - np.maximum(line[2], row[:, 2])
    along = np.minimum(line[1], row[:, 1]) - np.maximum(line[0], row[:, 0])
    thickness = np.minimum(line[3] - line[2], row[:, 3] - row[:, 2])
    return bool((across >= 0.5 * thickness).all() and (along <= 0.5 * thickness).all())


def _join_words(words: Extents) -> list[list[int]]:
    """Return the indices of the words of each line, from its start; what stands alone is a line too."""
    start, end, near, far = words.T
    thickness, length = far - near, end - start
    follows = (
        (_overlaps(near, far) >= 0.5 * np.minimum(thickness[:, None], thickness))
        & (np.abs(start - end[:, None]) <= _WORD_GAP * (thickness[:, None] + thickness) / 2)
        & (start + end > (start + end)[:, None])
    )
    stacked = _overlaps(start, end) > 0.5 * np.minimum(length[:, None], length)
    following = _nearest(follows, start, stacked)
    preceding = _nearest(follows.T, -end, stacked)
    linked = {word: after for word, after in following.items() if preceding.get(after) == word}
    lines = []
    for first in sorted(set(range(len(words))) - set(linked.values())):
        line = [first]
        while line[-1] in linked:
            line.append(linked[line[-1]])
        lines.append(line)
    return lines


def _overlaps(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return by how much the intervals overlap each other, (N, N), negative where there is a gap."""
    overlaps: npt.NDArray[np.float64] = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    return overlaps


def _nearest(
    follows: npt.NDArray[np.bool_], distance: npt.NDArray[np.float64], stacked: npt.NDArray[np.bool_]
) -> dict[int, int]:
    """Return which word follows next on each, where no other one that follows lies above or below that one."""
    nearest = {}
    for word, row in enumerate(follows):
        candidates = np.flatnonzero(row)
        if len(candidates):
            first = int(candidates[distance[candidates].argmin()])
            if not stacked[first, candidates[candidates != first]].any():
                nearest[word] = first
    return nearest
