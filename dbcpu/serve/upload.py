"""What clients send, read into memory within the limits and never onto the disk."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from dbcpu.serve.problems import BUSY, MALFORMED, TOO_LARGE, TOO_SLOW, ServeError
from dbcpu.serve.work import Picture

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request

    from dbcpu.serve.settings import Limits

_LOWEST_RATE = 32 << 10  # bytes a second; a client that is slower over the whole body holds the server up
_BODIES_IN_MEMORY = 8  # of the largest size, all clients together
RAW_NAME = "picture"  # of one that was sent without a name


class Room:
    """Memory for bodies, shared by all requests.

    Args:
        limits: of a request.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_body * _BODIES_IN_MEMORY
        self.taken = 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """Give a request its share; what it took is free again at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.taken -= share.taken

    def take(self, size: int) -> None:
        """Take some bytes.

        Raises:
            ServeError: there is not so much left.
        """
        if self.taken + size > self._most:
            raise ServeError(BUSY, "too many pictures arrive at once", remedy="try again later", retry_after=5)
        self.taken += size


class Share:
    """What one request has taken of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken = 0

    def take(self, size: int) -> None:
        """Take more, as `Room.take`."""
        self._room.take(size)
        self.taken += size


class _InMemoryParser(MultiPartParser):
    spool_max_size = 1 << 62  # files of any size that passes the limit stay out of the disk
    is_complete = False  # the parser ends without an error where the body does, in the middle of a part too

    def on_headers_finished(self) -> None:
        """Take every part for a file, also where the client gives it no name."""
        disposition = self._current_part.content_disposition
        if disposition is not None and b"filename" not in parse_options_header(disposition)[1]:
            self._current_part.content_disposition = disposition + f'; filename="{RAW_NAME}"'.encode()
        super().on_headers_finished()

    def on_end(self) -> None:
        """Note the last boundary."""
        self.is_complete = True


async def read_pictures(request: Request, limits: Limits, share: Share, *, most: int) -> list[Picture]:
    """Read the picture files of a request: its parts where it is multipart, else its body.

    Args:
        request: not read yet.
        limits: on size, time and number.
        share: of the memory for bodies.
        most: files that may come.

    Raises:
        ServeError: over a limit, malformed, or without a file.
        ClientDisconnect: the client has left.
    """
    body = _read_body(request, limits, share)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        content = b"".join([chunk async for chunk in body])
        if not content:
            raise ServeError(MALFORMED, "the body is empty", remedy="send a picture file as the body")
        return [Picture(content=content, name=RAW_NAME)]
    parser = _InMemoryParser(request.headers, body, max_files=most, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ServeError(MALFORMED, error.message.rstrip("."), remedy="name each part `file`") from None
    except UnicodeError:
        raise ServeError(MALFORMED, "a name is not of the charset that the form tells", remedy="use UTF-8") from None
    if not parser.is_complete:
        raise ServeError(MALFORMED, "the form ends before its last boundary", remedy="send it again")
    pictures = [
        Picture(content=await part.read(), name=part.filename or RAW_NAME)
        for part in form.getlist("file")
        if isinstance(part, UploadFile)
    ]
    if not pictures or len(pictures) < len(form.multi_items()):
        raise ServeError(MALFORMED, "a part is missing or unknown", remedy="name each part `file`")
    return pictures


async def _read_body(request: Request, limits: Limits, share: Share) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    _check_size(int(declared) if declared.isdecimal() else 0, limits)
    clock = asyncio.get_running_loop().time
    begun, received = clock(), 0
    more = True
    while more:
        left = begun + limits.read_timeout + received / _LOWEST_RATE - clock()
        try:
            message = await asyncio.wait_for(request.receive(), left)
        except asyncio.TimeoutError:
            what = f"{received} bytes of the body arrived in {math.ceil(clock() - begun)} seconds"
            raise ServeError(TOO_SLOW, what, remedy="use a faster connection, or a smaller picture") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        _check_size(received, limits)
        share.take(len(chunk))
        yield chunk


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.max_body:
        what = f"a body of {size} bytes or more is over the limit of {limits.max_body}"
        raise ServeError(TOO_LARGE, what, remedy="send a smaller file")
