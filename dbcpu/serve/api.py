"""The routes under `/v1`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from dbcpu.errors import DbcpuError
from dbcpu.serve.keeping import Session
from dbcpu.serve.models import (
    BatchLine,
    DetectQuery,
    DetectResponse,
    FileSettings,
    Model,
    Models,
    NoQuery,
    PictureQuery,
    SessionQuery,
)
from dbcpu.serve.openapi import LINES, SESSION_HEADER, SESSION_LINKS, described, picture_body, problems
from dbcpu.serve.problems import (
    BUSY,
    DEADLINE,
    MALFORMED,
    NOT_FOUND,
    PICTURE,
    SETTING,
    TOO_LARGE,
    TOO_SLOW,
    UNEXPECTED,
    WORKER_DIED,
    ServeError,
    kind_of,
    problem_body,
)
from dbcpu.serve.upload import read_pictures
from dbcpu.serve.work import Detection, Rendition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from starlette.types import Receive, Scope, Send

    from dbcpu.overrides import Overrides
    from dbcpu.serve.keeping import Keeping
    from dbcpu.serve.line import Job, Line
    from dbcpu.serve.metrics import Metrics
    from dbcpu.serve.problems import Kind
    from dbcpu.serve.settings import ServeSettings
    from dbcpu.serve.upload import Room
    from dbcpu.serve.work import ModelFacts, PageDone, Picture

T = TypeVar("T")
_MEDIA_TYPES = {"json": "application/json", "icdar": "text/plain; charset=utf-8", "overlay-png": "image/png"}
_PATIENCE = 0.1  # seconds between a batch's looks for a free place
_WORK_PROBLEMS = (TOO_LARGE, PICTURE, SETTING, UNEXPECTED, WORKER_DIED, BUSY, DEADLINE)


class Api:
    """What the routes do.

    Args:
        settings: of the server.
        facts: of the loaded network.
        line: in front of the workers.
        keeping: of pictures and maps.
        room: for the bodies of requests.
        metrics: told of everything.
    """

    def __init__(
        self, settings: ServeSettings, facts: ModelFacts, line: Line, keeping: Keeping, room: Room, metrics: Metrics
    ) -> None:
        self._limits = settings.limits
        self._window = 2 * settings.workers  # files of a batch in the line at once
        self._facts = facts
        self._line = line
        self._keeping = keeping
        self._metrics = metrics
        self._room = room

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/v1")

        def add(
            method: str,
            path: str,
            endpoint: Callable[..., Any],
            summary: str,
            responses: dict[int | str, dict[str, Any]],
            body: dict[str, Any] | None = None,
        ) -> None:
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                operation_id=endpoint.__name__,
                summary=summary,
                status_code=int(next(iter(responses))),
                response_class=Response,
                responses=responses,
                openapi_extra=body,
            )

        pages = described(DetectResponse, "The pages.", ["text/plain", "image/png"])
        kept = problems(NOT_FOUND, *_WORK_PROBLEMS)
        add(
            "POST",
            "/detect",
            self.detect,
            "Find the text in a file",
            {200: {**pages, **SESSION_LINKS}, **problems(MALFORMED, NOT_FOUND, TOO_SLOW, *_WORK_PROBLEMS)},
            picture_body(several=False),
        )
        add(
            "POST",
            "/detect/batch",
            self.detect_batch,
            "Find the text in several files, answered line by line",
            {
                200: described(BatchLine, "A JSON document a line.", media_type=LINES),
                **problems(MALFORMED, TOO_SLOW, *_WORK_PROBLEMS, lines=True),
            },
            picture_body(several=True),
        )
        summary = "Try other settings on a kept picture, without running the network again"
        add("GET", "/sessions/{token}", self.detect_again, summary, {200: pages, **kept})
        gone = {204: {"description": "It is not kept any more."}, **problems(SETTING)}
        add("DELETE", "/sessions/{token}", self.forget, "Forget a kept picture", gone)
        jpeg = {200: {"description": "The page.", "content": {"image/jpeg": {}}}, **kept}
        summary = "A page of a kept picture as JPEG, upright"
        add("GET", "/sessions/{token}/pages/{page}", self.page_picture, summary, jpeg)
        known = {200: described(Models, "The network."), **problems(SETTING)}
        add("GET", "/models", self.models, "The network and its settings", known)
        return router

    async def detect(self, request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
        """Send the file as the body, or as the part `file` of a form.

        Its content tells what it is, whatever type the request names: all that `dbcpu detect` reads. Polygons are in
        pixels of the upright page.
        """
        self._check_size(query.short_side)
        with self._room.share() as share:
            (picture,) = await read_pictures(request, self._limits, share, most=1)
            task = Detection(
                picture=picture, overrides=query.overrides(), form=query.form, page=query.page, keep=query.keep
            )
            pages = await self._answers(self._line.join(task), request)
        session = None
        if query.keep:
            maps = {done.page: done.kept for done in pages if done.kept is not None}
            session = self._keeping.keep(Session(picture=picture, maps=maps))
        return _response(pages, query.form, session)

    async def detect_batch(self, request: Request, query: Annotated[FileSettings, Query()]) -> Response:
        """Send the files as parts `file` of a form.

        Each page is a line, in the order of the files; a file that fails is a line with its problem, and the others go
        on. Where all of them fail, the status is that of the first problem.
        """
        self._check_size(query.short_side)
        with contextlib.ExitStack() as held:
            share = held.enter_context(self._room.share())
            pictures = await read_pictures(request, self._limits, share, most=self._limits.max_files)
            overrides = query.overrides()
            first = self._line.join(Detection(picture=pictures[0], overrides=overrides))
            held.callback(first.leave)
            lines = self._lines(pictures, overrides, first)
            begun = await _unless_left(request, _until_result(lines))
            if begun[-1].problem is None:
                return _Stream(_bodies(begun, lines), held.pop_all())
        status = begun[0].problem.status if begun[0].problem is not None else 200
        return Response(b"".join(line.body for line in begun), status, media_type=LINES)

    async def detect_again(
        self, request: Request, token: Annotated[str, Path(max_length=64)], query: Annotated[SessionQuery, Query()]
    ) -> Response:
        """The picture is one that `POST /v1/detect` kept."""
        session = self._keeping.find(token)
        only = next(iter(session.maps)) if len(session.maps) == 1 else None
        needs_pixels = query.form == "overlay-png"
        task = Detection(
            picture=session.picture if needs_pixels else replace(session.picture, content=b""),
            overrides=query.overrides(),
            form=query.form,
            page=query.page or only,
            kept=session.maps,
        )
        return _response(await self._answers(self._line.join(task), request), query.form, token)

    async def page_picture(
        self,
        request: Request,
        token: Annotated[str, Path(max_length=64)],
        page: Annotated[int, Path(ge=1, le=1_000_000)],
        query: Annotated[PictureQuery, Query()],
    ) -> Response:
        """For what browsers cannot show, such as TIFF."""
        task = Rendition(picture=self._keeping.find(token).picture, page=page, longest=query.longest)
        (done,) = await self._answers(self._line.join(task), request)
        return Response(done.body, media_type="image/jpeg")

    async def forget(self, token: Annotated[str, Path(max_length=64)], _: Annotated[NoQuery, Query()]) -> Response:
        """Nothing happens where it is not kept."""
        self._keeping.forget(token)
        return Response(status_code=204)

    async def models(self, _: Annotated[NoQuery, Query()]) -> Response:
        """What applies where a request does not say otherwise."""
        models = Models(models=[Model(**asdict(self._facts))])
        return Response(models.model_dump_json(), media_type="application/json")

    def _check_size(self, short_side: int | None) -> None:
        largest = self._limits.largest_short_side
        if short_side is not None and short_side > largest:
            raise ServeError(SETTING, f"short_side: {short_side} is over the limit of {largest}")

    async def _answers(self, job: Job, request: Request) -> list[PageDone]:
        """Gather the answers; a client who leaves gives up its place.

        Raises:
            DbcpuError: of the task.
            ClientDisconnect: the client has left.
        """
        try:
            return await _unless_left(request, self._gather(job))
        finally:
            job.leave()

    async def _gather(self, job: Job) -> list[PageDone]:
        pages = []
        try:
            async for done in job:
                self._metrics.page(done)
                pages.append(done)
        except DbcpuError as error:
            self._metrics.failure(kind_of(error).slug)
            raise
        finally:
            self._metrics.begun(job)
        return pages

    async def _lines(self, pictures: Sequence[Picture], overrides: Overrides, first: Job) -> AsyncIterator[_Line]:
        jobs: deque[tuple[int, Job | DbcpuError]] = deque([(0, first)])
        upcoming = 1
        try:
            while jobs:
                while upcoming < len(pictures) and len(jobs) < self._window:
                    jobs.append((upcoming, await self._join_patiently(pictures[upcoming], overrides)))
                    upcoming += 1
                index, job = jobs.popleft()
                async for line in self._file_lines(index, pictures[index].name, job):
                    yield line
        finally:
            for _, job in jobs:
                if not isinstance(job, DbcpuError):
                    job.leave()

    async def _file_lines(self, index: int, name: str, job: Job | DbcpuError) -> AsyncIterator[_Line]:
        head = json.dumps({"file": index, "name": name})[:-1].encode()
        try:
            if isinstance(job, DbcpuError):
                raise job
            async for done in job:
                self._metrics.page(done)
                yield _Line(head + b', "result": ' + done.body + b"}\n")
        except DbcpuError as error:
            self._metrics.failure(kind_of(error).slug)
            yield _Line(head + b', "problem": ' + problem_body(error) + b"}\n", kind_of(error))
        finally:
            if not isinstance(job, DbcpuError):
                self._metrics.begun(job)
                job.leave()

    async def _join_patiently(self, picture: Picture, overrides: Overrides) -> Job | DbcpuError:
        """Join the line, or wait for a place where others have filled it; what came before keeps its answer."""
        clock = asyncio.get_running_loop().time
        latest = clock() + self._limits.deadline
        while True:
            try:
                return self._line.join(Detection(picture=picture, overrides=overrides))
            except ServeError as error:
                if error.kind is not BUSY or clock() > latest:
                    return error
            await asyncio.sleep(_PATIENCE)


@dataclass(frozen=True)
class _Line:
    """A line of a batch's answer, and the kind of its problem where it has one."""

    body: bytes
    problem: Kind | None = None


async def _until_result(lines: AsyncIterator[_Line]) -> list[_Line]:
    """Return the lines up to the first one with a result, or all."""
    begun = []
    async for line in lines:
        begun.append(line)
        if line.problem is None:
            break
    return begun


async def _bodies(begun: Sequence[_Line], lines: AsyncIterator[_Line]) -> AsyncIterator[bytes]:
    for line in begun:
        yield line.body
    async for line in lines:
        yield line.body


class _Stream(StreamingResponse):
    """A stream that gives back what it holds, also where it never begins."""

    def __init__(self, lines: AsyncIterator[bytes], held: contextlib.ExitStack) -> None:
        super().__init__(lines, media_type=LINES)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def _unless_left(request: Request, answer: Coroutine[None, None, T]) -> T:
    """Wait for an answer, but no longer than the client does.

    Raises:
        ClientDisconnect: the client has left; what it waited for is cancelled.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_wait_until_left(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _wait_until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _response(pages: Sequence[PageDone], form: str, session: str | None) -> Response:
    headers = None if session is None else {SESSION_HEADER: session}
    if form == "json":
        head = b'{"session": ' + json.dumps(session).encode() + b', "pages": ['
        body = head + b",\n".join(done.body for done in pages) + b"]}\n"
    else:
        body = b"".join(done.body for done in pages)  # of an overlay there is one
    return Response(body, headers=headers, media_type=_MEDIA_TYPES[form])
