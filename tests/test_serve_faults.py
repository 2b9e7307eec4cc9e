"""What the server gives when processes die, pictures take too long, clients are slow, and it is told to end."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import SAMPLE, Served, serving, wait_until


@pytest.fixture(scope="module")
def slow() -> bytes:
    """A file of many pages that no machine is done with in seconds."""
    page = Image.open(SAMPLE)
    stream = io.BytesIO()
    page.save(stream, "TIFF", compression="jpeg", save_all=True, append_images=[page] * 15)
    return stream.getvalue()


@pytest.fixture(scope="module")
def quick() -> bytes:
    return SAMPLE.read_bytes()


@pytest.fixture(scope="module")
def killed() -> Iterator[Served]:
    """A server whose workers are killed, one test after the other."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def cramped() -> Iterator[Served]:
    with serving("--max-body", 1) as server:
        yield server


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def detect(server: Served, content: bytes, **parameters: Any) -> httpx.Response:
    return httpx.post(f"{server.url}v1/detect", content=content, params=parameters, timeout=60)


def begin_slow(threads: ThreadPoolExecutor, server: Served, slow: bytes) -> Future[httpx.Response]:
    """Send the slow picture, and wait until a worker is at it."""
    future = threads.submit(detect, server, slow, short_side=1024)
    assert wait_until(lambda: server.figure("dbcpu_running") == 1)
    return future


def is_well(server: Served, quick: bytes) -> bool:
    return detect(server, quick).status_code == 200 and httpx.get(f"{server.url}readyz").status_code == 200


@contextlib.contextmanager
def raw(server: Served, head: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head)
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def post_head(length: int) -> bytes:
    return f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def kill_worker(server: Served) -> None:
    """Kill the worker, and wait until another one has its task."""
    deaths = server.figure("dbcpu_worker_deaths")
    os.kill(server.pids()[1], signal.SIGKILL)
    assert wait_until(lambda: server.figure("dbcpu_worker_deaths") == deaths + 1)


PART_END = b"\r\n--part--\r\n"


def batch_head(content: bytes) -> bytes:
    """The begin of a batch of one file, where it goes on with the content and `PART_END`."""
    part = b'--part\r\nContent-Disposition: form-data; name="file"; filename="slow.tif"\r\n\r\n'
    head = post_head(len(part + content + PART_END)).replace(b"detect", b"detect/batch?short_side=1024")
    return head.replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/form-data; boundary=part\r\n\r\n") + part


def test_a_worker_that_is_killed_is_replaced_and_its_picture_done_again(
    threads: ThreadPoolExecutor, killed: Served, quick: bytes
):
    future = begin_slow(threads, killed, quick)
    kill_worker(killed)
    assert len(future.result().json()["pages"]) == 1
    os.kill(killed.pids()[1], signal.SIGSEGV)  # while it has nothing to do
    assert is_well(killed, quick)


def test_the_process_that_loads_the_model_is_replaced_too(killed: Served, quick: bytes):
    for victim in killed.pids():
        os.kill(victim, signal.SIGKILL)
    assert is_well(killed, quick)


def test_a_picture_that_two_workers_die_over_is_given_up(
    threads: ThreadPoolExecutor, killed: Served, slow: bytes, quick: bytes
):
    future = begin_slow(threads, killed, slow)
    kill_worker(killed)
    assert wait_until(lambda: killed.figure("dbcpu_running") == 1)
    kill_worker(killed)
    response = future.result()
    assert (response.status_code, response.json()["type"]) == (500, "/docs#problem-worker-died")
    assert "the last one killed by SIGKILL" in response.json()["detail"]
    assert is_well(killed, quick)


def test_a_batch_streams_and_goes_on_when_a_worker_dies(killed: Served, slow: bytes, quick: bytes):
    files = [("file", ("slow.tif", slow)), ("file", ("quick.jpg", quick))]
    address = f"{killed.url}v1/detect/batch?short_side=256"
    with httpx.stream("POST", address, files=files, timeout=60) as response:
        received = response.iter_lines()
        first = next(received)  # there before the rest
        kill_worker(killed)
        lines = [json.loads(line) for line in (first, *received)]
    pages = [(line["file"], line["result"]["page"]) for line in lines]
    assert pages == [*((0, page) for page in range(1, 17)), (1, 1)]


def test_a_picture_that_takes_too_long_gives_up_its_worker(threads: ThreadPoolExecutor, slow: bytes, quick: bytes):
    with serving("--deadline", 2) as server:
        running = begin_slow(threads, server, slow)
        waiting = threads.submit(detect, server, slow, short_side=1024)
        assert wait_until(lambda: server.figure("dbcpu_queue_depth") == 1)
        assert detect(server, quick).status_code == 503  # it would hardly be done by the deadline
        details = [future.result().json() for future in (running, waiting)]
        assert [detail["status"] for detail in details] == [504, 504]
        assert details[0]["detail"].startswith("took longer than 2 seconds")
        assert wait_until(lambda: server.figure("dbcpu_running") == 0)
        assert is_well(server, quick)


@pytest.mark.slow
def test_a_full_line_is_said_at_once_and_clients_who_leave_free_their_place(slow: bytes, quick: bytes):
    with serving("--queue", 1) as server, contextlib.ExitStack() as clients:
        head = post_head(len(slow)).replace(b"detect", b"detect?short_side=1024")
        clients.enter_context(raw(server, batch_head(slow) + slow + PART_END))
        assert wait_until(lambda: server.figure("dbcpu_running") == 1)
        clients.enter_context(raw(server, head + slow))
        assert wait_until(lambda: server.figure("dbcpu_queue_depth") == 1)
        response = detect(server, quick)
        assert (response.status_code, response.json()["type"]) == (503, "/docs#problem-busy")
        assert int(response.headers["retry-after"]) >= 1
        batch = httpx.post(f"{server.url}v1/detect/batch", files=[("file", ("a.jpg", quick))])
        assert batch.status_code == 503
        assert server.figure("dbcpu_running") == 1
        clients.close()
        assert wait_until(lambda: server.figure("dbcpu_queue_depth") == server.figure("dbcpu_running") == 0)
        assert is_well(server, quick)


@pytest.mark.slow
def test_slow_clients_are_cut_off_and_hold_nobody_up(quick: bytes):
    with serving("--read-timeout", 1) as server, contextlib.ExitStack() as clients:
        silent = clients.enter_context(raw(server, b""))
        heads = [clients.enter_context(raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")) for _ in range(50)]
        bodies = [clients.enter_context(raw(server, post_head(1000) + b"x" * 10)) for _ in range(5)]
        assert is_well(server, quick)
        until = time.monotonic() + 2
        while time.monotonic() < until:  # a byte now and then is no progress
            with contextlib.suppress(OSError):
                heads[0].sendall(b"x")
            time.sleep(0.1)
        assert [all_of(connection) for connection in (silent, *heads)] == [b""] * 51
        for connection in bodies:
            connection.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, "10 bytes of the body" in json.load(answer)["detail"]) == (408, True)
        assert is_well(server, quick)


def test_bodies_have_one_room_together(cramped: Served, quick: bytes):
    with contextlib.ExitStack() as clients:
        for _ in range(8):
            clients.enter_context(raw(cramped, post_head(1 << 20) + b"x" * ((1 << 20) - 1)))
        assert wait_until(lambda: cramped.figure("dbcpu_body_bytes") == (8 << 20) - 8)
        response = detect(cramped, quick)
        assert (response.status_code, "arrive at once" in response.json()["detail"]) == (503, True)
    assert wait_until(lambda: is_well(cramped, quick))


def test_a_client_sees_why_its_body_is_refused_before_it_has_sent_it(cramped: Served):
    with raw(cramped, post_head(100 << 20) + b"x" * (4 << 20)) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.load(answer)["type"]) == (413, "/docs#problem-too-large")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGHUP))]
)
def test_what_was_begun_ends_well_when_the_server_is_told_to_end(
    number: int, threads: ThreadPoolExecutor, quick: bytes
):
    if number == signal.SIGHUP and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("nohup has the server ignore it too")
    with serving() as server:
        family = server.pids()
        futures = [threads.submit(detect, server, quick, short_side=512) for _ in range(4)]
        assert wait_until(lambda: server.figure("dbcpu_running") + server.figure("dbcpu_queue_depth") >= 2)
        server.process.send_signal(number)
        assert [future.result().status_code for future in futures] == [200] * 4
        assert server.process.wait(30) == (130 if number == signal.SIGINT else 0)
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
        assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family))  # noqa: PTH110
