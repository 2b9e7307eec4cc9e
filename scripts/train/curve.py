"""The learning curve as a picture: losses and F-measures of a `log.jsonl` over the minutes of training."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, MARGIN = 1100, 420, 60
COLOURS = ((180, 90, 30), (40, 120, 220), (60, 160, 60), (150, 60, 160), (90, 90, 90))  # BGR


def draw_curve(log: Path, picture: Path) -> None:
    """Write `picture`, the losses above, the F-measures below; nothing where there is no log."""
    if not log.exists():
        return
    rows = [json.loads(row) for row in log.read_text(encoding="utf-8").splitlines()]
    panels = [_panel(rows, "loss_", smooth=25), _panel(rows, "f_", smooth=1)]
    cv2.imwrite(str(picture), np.vstack(panels))


def _panel(rows: list[dict[str, float]], prefix: str, smooth: int) -> np.ndarray:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    last = max((row["minutes"] for row in rows), default=1.0) or 1.0
    names = sorted({key for row in rows for key in row if key.startswith(prefix)})
    series = {}
    for name in names:
        points = np.array([(row["minutes"], row[name]) for row in rows if name in row])
        window = min(smooth, len(points))
        kernel = np.ones(window) / window
        series[name] = np.column_stack([points[window - 1 :, 0], np.convolve(points[:, 1], kernel, "valid")])
    top = 1.0 if prefix == "f_" else max((np.percentile(p[:, 1], 99) for p in series.values()), default=1.0)
    for tick in np.linspace(0, 1, 6):
        level = int(HEIGHT - MARGIN - tick * (HEIGHT - 2 * MARGIN))
        left = int(MARGIN + tick * (WIDTH - 4 * MARGIN))
        cv2.line(canvas, (MARGIN, level), (WIDTH - 3 * MARGIN, level), (225, 225, 225), 1)
        _write(canvas, f"{tick * top:.2f}", (8, level + 4), (0, 0, 0))
        _write(canvas, f"{tick * last:.3g} min", (left - 16, HEIGHT - MARGIN + 22), (0, 0, 0))
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        x = MARGIN + points[:, 0] / last * (WIDTH - 4 * MARGIN)
        y = HEIGHT - MARGIN - np.clip(points[:, 1] / top, 0, 1) * (HEIGHT - 2 * MARGIN)
        track = np.column_stack([x, y]).round().astype(np.int32)
        cv2.polylines(canvas, [track], False, colour, 2, cv2.LINE_AA)
        if len(track) < 50:  # a single one has no line
            for place in track.tolist():
                cv2.circle(canvas, place, 4, colour, -1, cv2.LINE_AA)
        _write(canvas, name, (WIDTH - 3 * MARGIN + 12, MARGIN + 22 * number), colour)
    return canvas


def _write(canvas: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
