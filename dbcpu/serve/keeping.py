"""Pictures whose probability maps are kept for a while, so that other settings can be tried at once."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbcpu.serve.problems import NOT_FOUND, ServeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbcpu.serve.work import KeptMap, Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A picture that was looked at.

    Attributes:
        picture: the file.
        maps: of its pages, by their numbers.
    """

    picture: Picture
    maps: Mapping[int, KeptMap]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.picture.content) + sum(kept.probability_map.nbytes for kept in self.maps.values())


class Keeping:
    """Sessions by their tokens; those unused for longest go when there are too many or they are too old.

    Args:
        seconds: that an unused session stays.
        size: bytes of them all.
    """

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._most = size
        self._sessions: OrderedDict[str, tuple[float, Session]] = OrderedDict()  # the one used last is last
        self.size = 0

    def keep(self, session: Session) -> str | None:
        """Keep a session and return its token, which nobody can guess; None where it is larger than all may be."""
        if session.size > self._most:
            return None
        token = secrets.token_urlsafe(24)
        self._sessions[token] = (time.monotonic(), session)
        self.size += session.size
        while self.size > self._most:
            self.forget(next(iter(self._sessions)))
        return token

    def find(self, token: str) -> Session:
        """Return a session, which counts as a use.

        Raises:
            ServeError: there is none, or none any more.
        """
        self.sweep()
        if token not in self._sessions:
            raise ServeError(NOT_FOUND, "no such session, or it is over", remedy="send the picture again")
        _, session = self._sessions.pop(token)
        self._sessions[token] = (time.monotonic(), session)
        return session

    def forget(self, token: str) -> None:
        """End a session, if there is one."""
        if token in self._sessions:
            self.size -= self._sessions.pop(token)[1].size

    def sweep(self) -> None:
        """Forget what is too old."""
        oldest = time.monotonic() - self._seconds
        while self._sessions and next(iter(self._sessions.values()))[0] < oldest:
            self.forget(next(iter(self._sessions)))
