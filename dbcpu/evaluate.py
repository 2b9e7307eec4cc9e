"""How good detections are: the two protocols of the original's evaluation, IoU (ICDAR 2015) and DetEval.

The geometry of a page is measured once, and then any of its detections can be scored in no time: that is what makes
sweeping a threshold cheap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from dbcpu.truth import Detection, TruthInstance

    Flags = npt.NDArray[np.bool_]
    Indices = npt.NDArray[np.intp]
    Values = npt.NDArray[np.float64]

Protocol = Literal["iou", "deteval"]
Verdict = Literal["hit", "miss", "ignored"]

# A detection does not count when more than this share of it lies on one ignored truth.
_IGNORED_SHARE: dict[Protocol, float] = {"iou": 0.5, "deteval": 0.4}
MIN_IOU = 0.5
MIN_RECALL = 0.8  # of DetEval: share of a truth that is covered
MIN_PRECISION = 0.4  # of DetEval: share of a detection that lies on the truth
SPLIT_CREDIT = 0.8  # of DetEval: what a truth counts that several detections make up, and each of these


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts over one page or many; `+` joins them.

    Attributes:
        truths: those that count, the ignored ones left out.
        detections: those that count.
        recalled: what the truths that were found count together.
        precise: what the detections that are right count together.
    """

    truths: int = 0
    detections: int = 0
    recalled: float = 0.0
    precise: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            truths=self.truths + other.truths,
            detections=self.detections + other.detections,
            recalled=self.recalled + other.recalled,
            precise=self.precise + other.precise,
        )

    @property
    def recall(self) -> float:
        """Share of the truths that were found, in [0, 1]; 1 where there is nothing to find."""
        return self.recalled / self.truths if self.truths else 1.0

    @property
    def precision(self) -> float:
        """Share of the detections that are right, in [0, 1]; without any, 1 where there is nothing to find, else 0."""
        if self.detections == 0:
            return 0.0 if self.truths else 1.0
        return self.precise / self.detections

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall, 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class PageScore:
    """What a protocol says of one page.

    Attributes:
        tally: of the page.
        truths: "hit", "miss" or "ignored" for each truth; outlines that cross themselves are ignored.
        detections: likewise, "miss" being a detection of nothing.
    """

    tally: Tally
    truths: tuple[Verdict, ...]
    detections: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlaps:
    """The geometry of one page with T truths and D detections, of which P pairs overlap.

    Outlines that are not simple polygons take no part.

    Attributes:
        cared: (T,), truths to find.
        ignored: (T,), truths that may be found or missed.
        present: (D,), detections that take part.
        scores: (D,), NaN where a detection has none.
        truth: (P,), index of the truth, in ascending order.
        detection: (P,), index of the detection, in ascending order for each truth.
        recall: (P,), intersection / area of the truth, in (0, 1].
        precision: (P,), intersection / area of the detection, in (0, 1].
        iou: (P,), intersection / union, in (0, 1].
        distance: (P,), of the mean points, in units of the mean of the diagonals of both bounding boxes.
    """

    cared: Flags
    ignored: Flags
    present: Flags
    scores: Values
    truth: Indices
    detection: Indices
    recall: Values
    precision: Values
    iou: Values
    distance: Values

    def above(self, score_threshold: float) -> Overlaps:
        """Return the same page with the detections of at least this score alone."""
        return replace(self, present=self.present & (self.scores >= score_threshold))


def measure_overlaps(truths: Sequence[TruthInstance], detections: Sequence[Detection]) -> Overlaps:
    """Measure how the truths and the detections of one page lie to each other."""
    truth_shapes, truth_simple = _shapes([truth.polygon for truth in truths])
    shapes, simple = _shapes([detection.polygon for detection in detections])
    ignored = np.array([truth.ignored for truth in truths], np.bool_)
    truth, detection = shapely.STRtree(shapes).query(truth_shapes)  # overlapping bounding boxes
    order = np.lexsort((detection, truth))
    order = order[truth_simple[truth[order]] & simple[detection[order]]]
    truth, detection = truth[order], detection[order]
    shared = shapely.area(shapely.intersection(shapes[detection], truth_shapes[truth]))
    overlapping = shared > 0
    truth, detection, shared = truth[overlapping], detection[overlapping], shared[overlapping]
    truth_areas, areas = shapely.area(truth_shapes)[truth], shapely.area(shapes)[detection]
    return Overlaps(
        cared=truth_simple & ~ignored,
        ignored=truth_simple & ignored,
        present=simple,
        scores=np.array([np.nan if d.score is None else d.score for d in detections], np.float64),
        truth=truth,
        detection=detection,
        recall=shared / truth_areas,
        precision=shared / areas,
        iou=shared / (truth_areas + areas - shared),
        distance=np.array(
            [_distance(truths[t].polygon, detections[d].polygon) for t, d in zip(truth, detection, strict=True)],
            np.float64,
        ),
    )


def _shapes(polygons: Sequence[npt.NDArray[np.floating[Any]]]) -> tuple[npt.NDArray[np.object_], Flags]:
    """Return polygons (N,), and which of them are valid and simple."""
    shapes = np.array([shapely.Polygon(polygon) for polygon in polygons], np.object_)
    return shapes, shapely.is_valid(shapes) & shapely.is_simple(shapes)


def _distance(truth: npt.NDArray[np.floating[Any]], detection: npt.NDArray[np.floating[Any]]) -> float:
    between = np.linalg.norm(truth.mean(axis=0) - detection.mean(axis=0))
    diagonals = np.linalg.norm(np.ptp(truth, axis=0)) + np.linalg.norm(np.ptp(detection, axis=0))
    return float(between / diagonals * 2)


def score_page(overlaps: Overlaps, protocol: Protocol) -> PageScore:
    """Score one page.

    "iou": truths and detections are matched one to one, greedily in their order, where IoU > 0.5. "deteval" (Wolf and
    Jolion) also accepts a truth that several detections make up, at a discount, and a detection that several truths
    make up.
    """
    on_ignored = overlaps.ignored[overlaps.truth] & (overlaps.precision > _IGNORED_SHARE[protocol])
    cared = overlaps.present.copy()
    cared[overlaps.detection[on_ignored]] = False
    page = _Page(overlaps, cared)
    if protocol == "iou":
        page.match_by_iou()
    else:
        page.match_one_to_one()
        page.match_one_to_many()
        page.match_many_to_one()
    return page.score()


class _Page:
    """The matching of one page as it grows. Pairs are indices into the arrays of `Overlaps`.

    Args:
        overlaps: of the page.
        detections_cared: (D,), those that count.
    """

    def __init__(self, overlaps: Overlaps, detections_cared: Flags) -> None:
        self.overlaps = overlaps
        self.detections_cared = detections_cared
        self.pair_cared = overlaps.cared[overlaps.truth] & detections_cared[overlaps.detection]
        self.truth_taken = np.zeros(len(overlaps.cared), np.bool_)
        self.detection_taken = np.zeros(len(overlaps.present), np.bool_)
        self.recalled = self.precise = 0.0

    def score(self) -> PageScore:
        tally = Tally(
            truths=int(self.overlaps.cared.sum()),
            detections=int(self.detections_cared.sum()),
            recalled=self.recalled,
            precise=self.precise,
        )
        return PageScore(
            tally=tally,
            truths=_verdicts(self.overlaps.cared, self.truth_taken),
            detections=_verdicts(self.detections_cared, self.detection_taken),
        )

    def match_by_iou(self) -> None:
        o = self.overlaps
        for pair in np.flatnonzero(self.pair_cared & (o.iou > MIN_IOU)).tolist():
            if not (self.truth_taken[o.truth[pair]] or self.detection_taken[o.detection[pair]]):
                self._take([pair], recalled=1, precise=1)

    def match_one_to_one(self) -> None:
        """Match the pairs that no other truth or detection, ignored ones included, comes near to."""
        o = self.overlaps
        good = (o.recall >= MIN_RECALL) & (o.precision >= MIN_PRECISION) & o.present[o.detection]
        alone = (self._per_truth(good) == 1) & (self._per_detection(good) == 1)
        alone &= (self._per_truth(self.pair_cared) == 1) & (self._per_detection(self.pair_cared) == 1)
        for pair in np.flatnonzero(self.pair_cared & good & alone & (o.distance < 1)).tolist():
            self._take([pair], recalled=1, precise=1)

    def match_one_to_many(self) -> None:
        o = self.overlaps
        parts = self.pair_cared & (o.precision >= MIN_PRECISION) & (self._per_truth(self.pair_cared) >= 2)
        for pairs in _groups(parts, o.truth):
            free = [pair for pair in pairs if not self.detection_taken[o.detection[pair]]]
            if round(float(o.recall[free].sum()), 4) >= MIN_RECALL:
                credit = 1 if len(free) == 1 else SPLIT_CREDIT
                self._take(free, recalled=credit, precise=credit * len(free))

    def match_many_to_one(self) -> None:
        o = self.overlaps
        parts = self.pair_cared & (o.recall >= MIN_RECALL) & (self._per_detection(self.pair_cared) >= 2)
        for pairs in _groups(parts, o.detection):
            free = [pair for pair in pairs if not self.truth_taken[o.truth[pair]]]
            taken = self.detection_taken[o.detection[pairs[0]]]
            if not taken and round(float(o.precision[free].sum()), 4) >= MIN_PRECISION:
                self._take(free, recalled=len(free), precise=1)

    def _take(self, pairs: Sequence[int], *, recalled: float, precise: float) -> None:
        self.truth_taken[self.overlaps.truth[pairs]] = True
        self.detection_taken[self.overlaps.detection[pairs]] = True
        self.recalled += recalled
        self.precise += precise

    def _per_truth(self, chosen: Flags) -> Indices:
        """Return for each pair how many of the chosen pairs share its truth."""
        return _occurrences(self.overlaps.truth, chosen)

    def _per_detection(self, chosen: Flags) -> Indices:
        return _occurrences(self.overlaps.detection, chosen)


def _occurrences(indices: Indices, chosen: Flags) -> Indices:
    counts: Indices = np.bincount(indices[chosen], minlength=indices.max(initial=-1) + 1)[indices]
    return counts


def _groups(chosen: Flags, by: Indices) -> Iterator[list[int]]:
    """Yield the chosen pairs of each truth or detection, both in ascending order."""
    groups: dict[int, list[int]] = {}
    for pair in np.flatnonzero(chosen).tolist():
        groups.setdefault(int(by[pair]), []).append(pair)
    yield from (groups[index] for index in sorted(groups))


def _verdicts(cared: Flags, taken: Flags) -> tuple[Verdict, ...]:
    return tuple("hit" if hit else "miss" if counts else "ignored" for counts, hit in zip(cared, taken, strict=True))


def sweep_score_threshold(pages: Sequence[Overlaps], protocol: Protocol, thresholds: Sequence[float]) -> list[float]:
    """Return F over all pages for each score threshold, detections below it left out."""
    return [
        sum((score_page(page.above(threshold), protocol).tally for page in pages), Tally()).f
        for threshold in thresholds
    ]
