"""The next item made in a second thread, while the caller works on the current one."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
_LAST_WAIT = 0.5  # seconds for an item that nobody wants any more: libraries that end in the middle of work may crash


def take_ahead(items: Iterator[T], is_light: Callable[[T], bool]) -> Iterator[T]:
    """Yield the items of an iterator in their order, one of them in the making meanwhile.

    What the iterator raises is raised in its turn, after the items before it. Whoever stops earlier waits for the item
    in the making only briefly, since that may itself wait for input that never comes.

    Args:
        items: advanced in one other thread, never by two at once.
        is_light: whether the item after the given one may be made while the caller has the given one; otherwise that
            waits until the caller asks for it, and has let go of the given one.
    """
    end = object()
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[Future[T | object]] = SimpleQueue()

    def make() -> None:
        while wanted.get():
            taken: Future[T | object] = Future()
            try:
                taken.set_result(next(items, end))
            except BaseException as error:
                taken.set_exception(error)
            made.put(taken)
            del taken

    # No executor: the interpreter waits for its threads at the end, whatever they wait for.
    other = threading.Thread(target=make, name="ahead", daemon=True)
    other.start()
    try:
        wanted.put(True)
        while (item := made.get().result()) is not end:
            may_overlap = is_light(cast("T", item))
            if may_overlap:
                wanted.put(True)
            yield cast("T", item)
            del item
            if not may_overlap:
                wanted.put(True)
    finally:
        wanted.put(False)
        other.join(_LAST_WAIT)
