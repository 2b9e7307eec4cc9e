"""Results as a table, one row an instance."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from dbcpu.writers.markup import box_around, outline_inside, valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbcpu.result import DetectionResult

COLUMNS = ("image", "page", "instance", "score", "left", "top", "width", "height", "polygon")


def csv_table(results: Iterable[DetectionResult]) -> Iterator[str]:
    """Yield the heading, then the rows of each result; `polygon` is `x,y x,y ...`, `instance` counts from 1."""
    yield _rows([COLUMNS])
    for result in results:
        yield _rows(_cells(result))


def _cells(result: DetectionResult) -> Iterator[tuple[object, ...]]:
    for number, instance in enumerate(result.instances, start=1):
        outline = outline_inside(instance.polygon, result.image_size)
        polygon = " ".join(f"{x},{y}" for x, y in outline)
        yield valid_text(result.image), result.page, number, instance.score, *box_around([outline]), polygon


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
