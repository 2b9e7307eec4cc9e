"""Results as the text lines of the original's evaluation: `x1,y1,...,xn,yn,score`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbcpu.result import DetectionResult


def icdar_lines(result: DetectionResult) -> str:
    """Return one line an instance: whole coordinates, then the score; an empty text where nothing was found."""
    lines = []
    for instance in result.instances:
        coordinates = ",".join(str(int(value)) for value in instance.polygon.ravel().tolist())
        lines.append(f"{coordinates},{instance.score}\n")
    return "".join(lines)
