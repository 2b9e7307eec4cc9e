"""Connections, with the limits that uvicorn lacks."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)
_MOST_CONNECTIONS = 512


def timed_protocol(read_timeout: float) -> type[H11Protocol]:
    """Return the protocol for connections whose requests must be there in so many seconds."""
    return type("TimedProtocol", (_TimedProtocol,), {"read_timeout": read_timeout})


class _TimedProtocol(H11Protocol):
    """Closes connections where the headers of the next request take too long, and those above the limit.

    What is left of a body after its response counts as headers here: uvicorn reads on, so that the client sees the
    response before the connection ends.
    """

    read_timeout: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            logger.warning("more than %d connections", _MOST_CONNECTIONS)
            transport.abort()
            return
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # for clients that do not read their response
            milliseconds = round(self.read_timeout * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.read_timeout, self._give_up)

    def _give_up(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.close()  # when the client, slow as it is, has read its response
        else:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
