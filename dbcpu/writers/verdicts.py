"""The picture with truths and detections drawn over it, what was found and what was missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dbcpu.evaluate import PageScore, Verdict

    Picture = npt.NDArray[np.uint8]
    Polygon = npt.NDArray[np.floating[Any]]
    Colour = tuple[int, int, int]

# Blue, green, red. What went wrong is filled and comes last, so that nothing hides it.
_TRUTH_COLOURS: dict[Verdict, Colour] = {"ignored": (140, 140, 140), "hit": (40, 150, 0), "miss": (0, 0, 220)}
_DETECTION_COLOURS: dict[Verdict, Colour] = {"ignored": (200, 180, 60), "hit": (220, 90, 0), "miss": (190, 0, 190)}
_TRUTH_WORDS: dict[Verdict, str] = {"hit": "truths found", "miss": "truths missed", "ignored": "truths ignored"}
_DETECTION_WORDS: dict[Verdict, str] = {
    "hit": "detections right",
    "miss": "detections wrong",
    "ignored": "detections not counted",
}
_ORDER: tuple[Verdict, ...] = ("ignored", "hit", "miss")
_FILL = 0.18  # opacity of what went wrong
_FAR = 100_000  # pixels outside the picture; to fill what reaches 1e9 of them takes seconds
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22  # pixels of a digit at scale 1
_INK = (0, 0, 0)


def draw_verdicts(
    pixels_bgr: Picture, truths: Sequence[Polygon], detections: Sequence[Polygon], score: PageScore
) -> Picture:
    """Draw truths in thick lines and detections in thin ones, coloured by their verdict, below a legend with counts.

    Args:
        pixels_bgr: uint8 (H, W, 3), the picture the polygons are in the frame of; not changed.
        truths: polygons (K, 2), as many as `score` has verdicts for.
        detections: likewise.
        score: of the page.

    Returns:
        uint8 (H + legend, W or more, 3), blue first.
    """
    layers = [
        (polygon, verdict, colours[verdict], is_truth)
        for verdict in _ORDER
        for polygons, verdicts, colours, is_truth in (
            (truths, score.truths, _TRUTH_COLOURS, True),
            (detections, score.detections, _DETECTION_COLOURS, False),
        )
        for polygon, own in zip(polygons, verdicts, strict=True)
        if own == verdict
    ]
    tinted = pixels_bgr.copy()
    for polygon, verdict, colour, _ in layers:
        if verdict == "miss":
            cv2.fillPoly(tinted, [_points(polygon, drawn_on=tinted)], colour)
    drawn = np.asarray(cv2.addWeighted(tinted, _FILL, pixels_bgr, 1 - _FILL, 0), np.uint8)
    thin = max(1, round(min(pixels_bgr.shape[:2]) / 700))
    for polygon, _, colour, is_truth in layers:
        points = _points(polygon, drawn_on=drawn)
        cv2.polylines(drawn, [points], True, colour, thin + 1 if is_truth else thin, cv2.LINE_AA)
    legend = _legend(score, drawn.shape[1], letter_height=float(np.clip(min(drawn.shape[:2]) / 55, 9, 24)))
    missing = legend.shape[1] - drawn.shape[1]
    return np.concatenate([legend, np.pad(drawn, ((0, 0), (0, missing), (0, 0)), constant_values=255)])


def _points(polygon: Polygon, *, drawn_on: Picture) -> npt.NDArray[np.int32]:
    height, width = drawn_on.shape[:2]
    return np.clip(np.round(polygon), -_FAR, (width + _FAR, height + _FAR)).astype(np.int32)


def _legend(score: PageScore, width: int, letter_height: float) -> Picture:
    """Return white rows of at least `width` pixels with one label after the other, each in the colour it explains."""
    tally = score.tally
    labels = [(f"P {tally.precision:.3f}  R {tally.recall:.3f}  F {tally.f:.3f}", _INK)]
    for words, verdicts, colours in (
        (_TRUTH_WORDS, score.truths, _TRUTH_COLOURS),
        (_DETECTION_WORDS, score.detections, _DETECTION_COLOURS),
    ):
        labels += [(f"{verdicts.count(v)} {words[v]}", colours[v]) for v in words if v in verdicts]
    scale, thickness = letter_height / _FONT_HEIGHT, 1 if letter_height < 16 else 2
    line_height, gap = round(letter_height * 1.8), round(letter_height * 1.5)
    widths = [cv2.getTextSize(text, _FONT, scale, thickness)[0][0] + gap for text, _ in labels]
    places, left, line = [], 0, 0
    for label_width in widths:
        if left and left + label_width > width:
            left, line = 0, line + 1
        places.append((left + gap // 2, round((line + 0.75) * line_height)))
        left += label_width
    rows = np.full(((line + 1) * line_height, max(width, *widths), 3), 255, np.uint8)
    for (text, colour), place in zip(labels, places, strict=True):
        cv2.putText(rows, text, place, _FONT, scale, colour, thickness, cv2.LINE_AA)
    return rows
