"""Huge pages wait for each other; others do not wait for them."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

from dbcpu.batch.heavy import Gate, is_heavy


def test_the_header_tells_huge_pages():
    small, huge = (b"P5 %d %d 255\n" % (side, side) for side in (10, 8000))
    for content, heavy in ((small, False), (huge, True), (b"no picture", False), (b"", False), (b"%PDF-1.7", False)):
        stream = io.BytesIO(content)
        stream.read(3)
        assert is_heavy(stream) == heavy
        assert stream.tell() == 0


def test_one_lane_passes_at_a_time_and_the_other_says_that_it_waits():
    gate = Gate()
    waited: list[None] = []
    passed = threading.Event()

    def second() -> None:
        with gate.passed() as waiting:
            waited.extend(waiting)
            passed.set()

    with gate.passed() as waiting:
        assert list(waiting) == []
        thread = threading.Thread(target=second)
        thread.start()
        assert not passed.wait(0.3)
    thread.join(20)
    assert passed.is_set()
    assert waited


def test_who_does_not_ask_holds_nothing():
    gate = Gate()
    with gate.passed(), gate.passed() as waiting:
        assert list(waiting) == []


def test_a_process_that_dies_inside_frees_the_way(tmp_path: Path):
    gate = Gate()
    inside = tmp_path / "inside"
    pid = os.fork()
    if pid == 0:
        with gate.passed() as waiting:
            list(waiting)
            inside.touch()
            threading.Event().wait(30)
        os._exit(0)
    while not inside.exists():
        time.sleep(0.01)
    with gate.passed() as waiting:
        next(waiting)  # it is taken
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        list(waiting)  # ends, since the system has freed it
