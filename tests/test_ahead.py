from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dbcpu import load_detector
from dbcpu.ahead import take_ahead
from dbcpu.errors import ImageError


def test_items_keep_their_order_and_an_error_its_turn():
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("after five")

    taken: list[int] = []
    with pytest.raises(ValueError, match="after five"):
        taken.extend(take_ahead(items(), bool))
    assert taken == [0, 1, 2, 3, 4]


def test_the_next_item_is_made_while_the_caller_has_the_one_before_it():
    made = [threading.Event(), threading.Event()]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    ahead = take_ahead(items(), lambda _: True)
    assert next(ahead) == 0
    assert made[1].wait(10)
    assert list(ahead) == [1]


def test_nothing_is_made_beside_a_heavy_item():
    made = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    for item in take_ahead(items(), lambda _: False):
        assert made[-1] == item
    assert made == [0, 1, 2]


def test_whoever_stops_does_not_wait_for_an_item_that_never_comes():
    comes = threading.Event()
    others: list[threading.Thread] = []

    def items() -> Iterator[int]:
        others.append(threading.current_thread())
        yield 0
        comes.wait(60)
        yield 1

    ahead = take_ahead(items(), lambda _: True)
    assert next(ahead) == 0
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 30
    assert others[0].daemon  # or the interpreter would wait for it at the end
    comes.set()
    others[0].join(10)
    assert not others[0].is_alive()


def test_nothing_is_left_running_at_the_end():
    others = list(take_ahead((threading.current_thread() for _ in range(2)), lambda _: True))
    assert not any(other.is_alive() for other in others)


def test_a_batch_gives_what_each_picture_gives_by_itself(page: Path, tmp_path: Path):
    detector = load_detector(short_side=64)
    pictures = [page, np.full((40, 90, 3), 255, np.uint8), page]

    def outlines(results: list) -> list:
        return [(result.image, [i.polygon.tolist() for i in result.instances]) for result in results]

    assert outlines(detector.detect_batch(iter(pictures))) == outlines([detector.detect(one) for one in pictures])
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        detector.detect_batch([page, tmp_path / "none.png", page])
