"""One run at a time on results in an object store, which has no locks: an object tells when its holder was alive."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from dbcpu.batch.addresses import words
from dbcpu.batch.lock import HEARTBEAT, SILENCE, described
from dbcpu.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbcpu.batch.object_store import ObjectStore

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def object_locked(store: ObjectStore, name: str) -> Iterator[None]:
    """Hold the lock object `name` for the block.

    It is made only where there is none, which the store decides. That of a run which has fallen silent for a minute, or
    of a process of this machine that is no more, is taken over. Whoever finds at its next heartbeat that another run
    has taken over ends itself: results are whole objects that any run writes the same, so neither harms the other.

    Raises:
        OutputError: another run holds it, or it cannot be written.
    """
    ours = {"host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}
    _take(store, name, ours)
    ended = threading.Event()
    pulse = threading.Thread(target=_beat, args=(store, name, ours, ended), daemon=True)
    pulse.start()
    try:
        yield
    finally:
        ended.set()
        pulse.join()
        with contextlib.suppress(OutputError):
            if _holder(store, name).get("token") == ours["token"]:
                store.remove([name])


def _take(store: ObjectStore, name: str, ours: dict[str, Any]) -> None:
    for _ in range(2):
        try:
            store.put(name, _sign(ours), only_new=True)
        except Exception as error:
            holder = _holder(store, name)
            if not holder:  # there is no lock, so that something else is wrong
                raise OutputError(
                    f"the lock cannot be written: {words(error)}", where=f"{store.address}/{name}"
                ) from error
            _refuse_beside(holder, store)
            logger.warning("taking over from a run that did not end: %s", described(holder))
            store.remove([name])
        else:
            return
    raise OutputError("another run has just begun to work on these results", where=store.address)


def check_object_unlocked(store: ObjectStore, name: str) -> None:
    """Refuse to go on where another run holds the lock object `name`.

    Raises:
        OutputError: another run holds it, or it cannot be looked at.
    """
    if holder := _holder(store, name):
        _refuse_beside(holder, store)


def _refuse_beside(holder: dict[str, Any], store: ObjectStore) -> None:
    if _is_alive(holder):
        raise OutputError(
            f"another run works on these results: {described(holder)}",
            where=store.address,
            remedy="wait until it ends, or choose another place",
        ) from None


def _holder(store: ObjectStore, name: str) -> dict[str, Any]:
    filesystem, path = store.path(name)
    try:
        content = json.loads(filesystem.cat_file(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"host": "?"}
    except Exception as error:
        raise OutputError(f"the lock cannot be read: {words(error)}", where=f"{store.address}/{name}") from error
    return content if isinstance(content, dict) else {"host": "?"}


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") == socket.gethostname():
        try:
            os.kill(int(holder.get("process", 0)), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    return time.time() - float(holder.get("heartbeat", 0)) < SILENCE


def _sign(ours: dict[str, Any]) -> bytes:
    return json.dumps({**ours, "heartbeat": round(time.time(), 1)}).encode()


def _beat(store: ObjectStore, name: str, ours: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        try:
            holder = _holder(store, name)
            if holder.get("token", ours["token"]) != ours["token"]:
                logger.error("another run has taken over these results: %s", described(holder))
                os.kill(os.getpid(), signal.SIGTERM)  # ends this run as Ctrl-C does
                return
            store.write(name, _sign(ours))
        except OutputError as error:  # the network comes back, or the next page will tell
            logger.warning("%s", error)
