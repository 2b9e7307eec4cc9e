"""The next item made in a second thread, while the caller works on the current one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def take_ahead(items: Iterator[T], is_light: Callable[[T], bool]) -> Iterator[T]:
    """Yield the items of an iterator in their order, one of them in the making meanwhile.

    What the iterator raises is raised in its turn, after the items before it.

    Args:
        items: advanced in one other thread, never by two at once.
        is_light: whether the item after the given one may be made while the caller has the given one; otherwise that
            waits until the caller asks for it, and has let go of the given one.
    """
    end = object()

    def take() -> T | object:
        return next(items, end)

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as other:
        taken = other.submit(take)
        while (item := taken.result()) is not end:
            may_overlap = is_light(cast("T", item))
            if may_overlap:
                taken = other.submit(take)
            yield cast("T", item)
            del item
            if not may_overlap:
                taken = other.submit(take)
