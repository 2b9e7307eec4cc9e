"""What pages cost, as far as it is known before they are read: learnt from those that have ended."""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbcpu.batch.records import PageRecord, Scan, Task

_FIRST_GUESS = 1.0  # seconds of a page of a kind that was not met yet
_FORGETTING = 0.995  # of what was learnt, with each page: archives change from box to box
_BYTES = 1e6
_LONGEST = 4.0  # seconds of a parcel: what a worker that dies can cost, and how uneven the end may be
_LONGEST_A_WORKER = 0.03  # seconds: longer ones where workers are many, whose driver takes milliseconds for each
_MOST_LOOKED_AT = 256  # of the waiting tasks, for each parcel: there are thousands where workers are many


class CostModel:
    """Seconds of pages as a straight line over the size of their files, for each ending of a name.

    A page costs what the network takes, much the same for each, and what decoding takes, which grows with the file.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Line] = {}

    def learn(self, record: PageRecord) -> None:
        """Take a page into account that has ended."""
        kind = PurePosixPath(record.path).suffix.lower()
        self._kinds.setdefault(kind, _Line()).add(record.size / _BYTES, record.seconds)

    def seconds(self, task: Task) -> float:
        """Return what a task will probably take, in seconds of a worker."""
        pages = 1 if task.last_page is None else task.last_page - task.first_page + 1
        return pages * self._page(task.scan)

    def _page(self, scan: Scan) -> float:
        line = self._kinds.get(PurePosixPath(scan.name).suffix.lower())
        return _FIRST_GUESS if line is None else line.at(scan.size / _BYTES)


class _Line:
    """The line of least squares through weighted points, never falling and never below the least seen."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._least = float("inf")

    def add(self, x: float, y: float) -> None:
        self._n = self._n * _FORGETTING + 1
        self._x = self._x * _FORGETTING + x
        self._y = self._y * _FORGETTING + y
        self._xx = self._xx * _FORGETTING + x * x
        self._xy = self._xy * _FORGETTING + x * y
        self._least = min(self._least, y)

    def at(self, x: float) -> float:
        spread = self._n * self._xx - self._x**2
        slope = 0.0 if spread <= 1e-9 * self._xx else max(0.0, (self._n * self._xy - self._x * self._y) / spread)
        return max(self._least, 1e-3, self._y / self._n + slope * (x - self._x / self._n))


def cut_parcel(waiting: deque[Task], costs: CostModel, *, workers: int) -> list[Task]:
    """Take the next tasks that one worker gets at once, off the front of `waiting`.

    A large page goes alone, small ones go together, so that parcels take much the same time. Towards the end of the
    work they get smaller, so that no worker is left with a long one.

    Args:
        waiting: tasks, at least one; it need not be all there are, but enough to keep every worker busy.
        costs: of tasks.
        workers: that share them.
    """
    step = 1 + len(waiting) // _MOST_LOOKED_AT
    share = step * sum(map(costs.seconds, islice(waiting, 0, None, step))) / (2 * workers)
    parcel = [waiting.popleft()]
    room = min(share, max(_LONGEST, _LONGEST_A_WORKER * workers)) - costs.seconds(parcel[0])
    while waiting and (room := room - costs.seconds(waiting[0])) >= 0:
        parcel.append(waiting.popleft())
    return parcel
