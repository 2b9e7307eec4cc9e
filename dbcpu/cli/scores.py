"""The figures of `dbcpu evaluate`, as tables and as one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from dbcpu.evaluate import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHOWN_EVERY = 5  # of the swept thresholds


@dataclass(frozen=True, kw_only=True, eq=False)
class SetScores:
    """The figures of one set.

    Attributes:
        name: of the set.
        pages: by their stems.
    """

    name: str
    pages: Mapping[str, Tally]

    @property
    def total(self) -> Tally:
        """Over all pages."""
        return sum(self.pages.values(), Tally())


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """F for each score threshold.

    Attributes:
        thresholds: in ascending order.
        f: for each set, of as many numbers.
    """

    thresholds: Sequence[float]
    f: Mapping[str, Sequence[float]]

    @property
    def mean(self) -> list[float]:
        """Of the sets, each counting the same."""
        return [sum(values) / len(values) for values in zip(*self.f.values(), strict=True)]

    @property
    def best(self) -> int:
        """Index of the threshold with the highest mean, the lowest of equals."""
        return max(range(len(self.thresholds)), key=self.mean.__getitem__)


def score_table(sets: Sequence[SetScores], *, with_pages: bool) -> str:
    """Return one row a set, and one for each page below it."""
    rows: list[tuple[str, ...]] = [("set", "pages", "truths", "detections", "precision", "recall", "F")]
    for scores in sets:
        rows.append((scores.name, str(len(scores.pages)), *_cells(scores.total)))
        if with_pages:
            rows += [(f"  {stem}", "", *_cells(tally)) for stem, tally in scores.pages.items()]
    return _aligned(rows)


def sweep_table(sweep: Sweep) -> str:
    """Return F for some thresholds, the best one among them."""
    several = len(sweep.f) > 1
    columns = {**sweep.f, **({"mean": sweep.mean} if several else {})}
    rows: list[tuple[str, ...]] = [("score threshold", *(f"F {name}" for name in columns), "")]
    for index, threshold in enumerate(sweep.thresholds):
        if index % _SHOWN_EVERY == 0 or index == sweep.best:
            figures = (f"{values[index]:.4f}" for values in columns.values())
            rows.append((f"{threshold:.2f}", *figures, "best" if index == sweep.best else ""))
    return _aligned(rows)


def score_document(sets: Sequence[SetScores], sweep: Sweep | None, *, with_pages: bool) -> dict[str, Any]:
    """Return the same figures, unrounded, ready for JSON."""
    document: dict[str, Any] = {"sets": []}
    for scores in sets:
        entry: dict[str, Any] = {"name": scores.name, "pages": len(scores.pages), **_figures(scores.total)}
        if with_pages:
            entry["scores"] = [{"page": stem, **_figures(tally)} for stem, tally in scores.pages.items()]
        document["sets"].append(entry)
    if sweep is not None:
        rows = [
            {"score_threshold": threshold, "f": {name: values[index] for name, values in sweep.f.items()}, "mean": mean}
            for index, (threshold, mean) in enumerate(zip(sweep.thresholds, sweep.mean, strict=True))
        ]
        document["sweep"] = {"best": rows[sweep.best], "thresholds": rows}
    return document


def _figures(tally: Tally) -> dict[str, int | float]:
    return {
        "truths": tally.truths,
        "detections": tally.detections,
        "precision": tally.precision,
        "recall": tally.recall,
        "f": tally.f,
    }


def _cells(tally: Tally) -> tuple[str, ...]:
    return tuple(str(value) if isinstance(value, int) else f"{value:.4f}" for value in _figures(tally).values())


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows below each other, the first column to the left and the others to the right."""
    # Names of files may hold what no terminal can show.
    rows = [[cell.encode("utf-8", "backslashreplace").decode() for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - cell_len(cell)) for width, cell in zip(widths, row, strict=True)]
        lines.append("  ".join([row[0] + gaps[0], *(gap + cell for gap, cell in zip(gaps[1:], row[1:], strict=True))]))
    return "\n".join(line.rstrip() for line in lines)
