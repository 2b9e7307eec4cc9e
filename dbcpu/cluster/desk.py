"""Where the driver lays parcels out, and workers tell what they do: the one actor that all processes talk to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbcpu.batch.records import Outcome

STOPPED = -1  # what `Desk.begin` says when nothing more is to be begun


@dataclass(frozen=True)
class News:
    """What has happened since the driver asked last.

    Attributes:
        life: of the desk; another one has forgotten all parcels.
        begun: the nodes that parcels were begun on last, by their numbers.
        told: outcomes of parcels that are worked on with care, by their numbers.
        nodes: of workers that have begun to work, as they did.
        is_busy: whether a worker has said that it works.
    """

    life: str
    begun: dict[int, str]
    told: list[tuple[int, Outcome]]
    nodes: list[str]
    is_busy: bool


class Desk:
    """Parcels, numbered in their order, that a reading task takes one after the other.

    Ray may begin that task again from its start, so that a number always gives the same parcel, or nothing once it has
    been settled.
    """

    def __init__(self) -> None:
        self._life = uuid.uuid4().hex
        self._parcels: dict[int, bytes] = {}
        self._times_begun: dict[int, int] = {}
        self._next = 0
        self._is_closed = False
        self._changed = asyncio.Condition()
        self._begun: dict[int, str] = {}
        self._told: list[tuple[int, Outcome]] = []
        self._nodes: list[str] = []
        self._is_busy = False
        self._is_stopped = False

    async def lay_out(self, parcels: Mapping[int, bytes], following: int) -> None:
        """Add parcels; `following` is the number after the last one that there has ever been."""
        async with self._changed:
            self._parcels.update(parcels)
            self._next = following
            self._changed.notify_all()

    async def settle(self, number: int) -> None:
        """Forget a parcel whose outcome is known."""
        self._parcels.pop(number, None)
        self._times_begun.pop(number, None)

    async def stop(self) -> None:
        """Let no parcel be begun any more."""
        self._is_stopped = True

    async def close(self) -> None:
        """Tell the reading task that no more parcels will come."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def take(self, number: int) -> bytes | None:
        """Wait for a parcel: its content, empty where it was settled already; None when there are no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._next or self._is_closed)
        return self._parcels.get(number, b"") if number < self._next else None

    async def begin(self, number: int, node: str) -> int:
        """Note that a parcel is begun: how often that has happened before, or `STOPPED`."""
        if self._is_stopped:
            return STOPPED
        before = self._times_begun.get(number, 0)
        self._times_begun[number] = before + 1
        self._begun[number] = node
        self._is_busy = True
        return before

    async def ask(self) -> None:
        """Do nothing, as long as there is this desk."""

    async def go_on(self) -> None:
        """Note that some worker is at work."""
        self._is_busy = True

    async def tell(self, number: int, outcome: Outcome) -> None:
        """Pass an outcome on at once, where the parcel's end may never come."""
        self._told.append((number, outcome))
        self._is_busy = True

    async def join(self, node: str) -> None:
        """Note that a worker has got ready."""
        self._nodes.append(node)

    async def news(self) -> News:
        """Return what has happened since the last call."""
        news = News(self._life, self._begun, self._told, self._nodes, self._is_busy)
        self._begun, self._told, self._nodes, self._is_busy = {}, [], [], False
        return news
