"""The process that prepares the work once and forks every worker from there.

It is a fresh interpreter with a single thread, so that forking it is safe whatever runs in the process of the pool, and
so that a worker that had to be killed is replaced in milliseconds. The pages of the model are shared by all of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from dbcpu.workers.lanes import work_until_told

if TYPE_CHECKING:
    from dbcpu.workers.work import Work

_BOOT = "import sys; sys.path[:] = {path!r}; from dbcpu.workers.nursery import main; main({descriptor})"


class NurseryEndedError(Exception):
    """The nursery is gone, though nobody told it to go."""


class Nursery:
    """The nursery as the process of the pool sees it.

    Args:
        work: not yet prepared.
        lanes: of each worker.

    Raises:
        Exception: whatever `work.prepare` raises.
    """

    def __init__(self, work: Work[Any, Any], lanes: int) -> None:
        ours, theirs = socket.socketpair()
        command = _BOOT.format(path=sys.path, descriptor=theirs.fileno())
        # A session of its own: Ctrl-C on the terminal is for the process of the pool, which lets workers finish.
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own words
            [sys.executable, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours
        self.connection: Connection[Any, Any] = Connection(os.dup(ours.fileno()))
        self._exits: dict[int, int] = {}
        self._send((work, lanes, logging.getLogger("dbcpu").getEffectiveLevel()))
        kind, value = self._receive()
        if kind == "failed":
            self.close()
            raise value
        self.facts: object = value

    def fork(self) -> tuple[int, Connection[Any, Any]]:
        """Return the process id of a new worker, and the connection to it.

        Raises:
            NurseryEndedError: it is gone.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                socket.send_fds(self._socket, [b"+"], [theirs.fileno()])
            except OSError:
                raise NurseryEndedError from None
            while (message := self._receive())[0] != "forked":
                self._note(message)
            return message[1], Connection(ours.detach())

    def exit_status(self, pid: int, timeout: float) -> int | None:
        """Return how a worker ended, as `Popen.returncode` would; None where that isn't known in `timeout` seconds."""
        try:
            while pid not in self._exits and self.connection.poll(timeout):
                self._note(self._receive())
        except (NurseryEndedError, OSError):
            return None
        return self._exits.pop(pid, None)

    def close(self) -> None:
        """End the nursery and every worker that is left."""
        self.connection.close()
        self._socket.close()
        self._process.wait()

    def _note(self, message: tuple[str, Any]) -> None:
        pid, status = message[1]
        self._exits[pid] = status

    def _send(self, message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise NurseryEndedError from None

    def _receive(self) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            raise NurseryEndedError from None
        return message


def main(descriptor: int) -> None:
    """Run the nursery: prepare, then fork a worker for every descriptor that arrives, and tell of those that end."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # to be answered by the process of the pool alone
        signal.signal(ignored, signal.SIG_IGN)
    connection: Connection[Any, Any] = Connection(descriptor)
    work, lanes, level = connection.recv()
    logging.getLogger("dbcpu").setLevel(level)
    try:
        facts = work.prepare()
    except Exception as error:
        connection.send(("failed", error))
        return
    connection.send(("ready", facts))
    children: set[int] = set()
    with socket.socket(fileno=os.dup(descriptor)) as requests, selectors.DefaultSelector() as selector:
        awake, waker = _waker_of_ended_children()
        selector.register(requests, selectors.EVENT_READ)
        selector.register(awake, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if awake in ready:
                os.read(awake, 512)
                _tell_of_ended(children, connection)
            if requests in ready:
                descriptor_of_worker = _received_descriptor(requests)
                if descriptor_of_worker is None:
                    break
                pid = os.fork()
                if pid == 0:
                    for inherited in (awake, waker, requests.detach(), descriptor, selector):
                        inherited.close() if isinstance(inherited, selectors.BaseSelector) else os.close(inherited)
                    _be_worker(work, descriptor_of_worker, lanes)
                os.close(descriptor_of_worker)
                children.add(pid)
                connection.send(("forked", pid))
    _end(children)


def _end(children: set[int]) -> None:
    """End what is left, as the process of the pool has ended or wants it: once this returns, nothing is written."""
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def _received_descriptor(requests: socket.socket) -> int | None:
    """Return the descriptor that came with a request; None where the other side is gone."""
    try:
        _, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
    except ConnectionResetError:  # it left before it had read everything
        return None
    return descriptors[0] if descriptors else None


def _waker_of_ended_children() -> tuple[int, int]:
    """Return the two ends of a pipe that can be read from when children have ended."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read, write


def _tell_of_ended(children: set[int], connection: Connection[Any, Any]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            break
        children.discard(pid)
        with contextlib.suppress(OSError):
            connection.send(("exited", (pid, os.waitstatus_to_exitcode(status))))


def _be_worker(work: Work[Any, Any], descriptor: int, lanes: int) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        work_until_told(work, Connection(descriptor), lanes)
        code = 0
    finally:
        os._exit(code)  # never back into the loop of the nursery
