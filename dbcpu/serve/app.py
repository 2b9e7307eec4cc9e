"""The application: the API, the page, the documentation, and what watches over them."""

from __future__ import annotations

import functools
import hmac
import logging
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import BaseRoute, Match
from starlette.staticfiles import StaticFiles

from dbcpu.errors import DbcpuError, printable
from dbcpu.serve.api import Api
from dbcpu.serve.documentation import documentation_page
from dbcpu.serve.keeping import Keeping
from dbcpu.serve.metrics import Metrics
from dbcpu.serve.models import Health
from dbcpu.serve.openapi import SESSION_HEADER, openapi_document, problems
from dbcpu.serve.problems import (
    BUSY,
    MALFORMED,
    MEDIA_TYPE,
    METHOD,
    NO_KEY,
    NOT_FOUND,
    SETTING,
    UNEXPECTED,
    ServeError,
    kind_of,
    problem_body,
    problem_headers,
)
from dbcpu.serve.upload import Room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dbcpu.serve.line import Line
    from dbcpu.serve.settings import ServeSettings
    from dbcpu.serve.work import ModelFacts

logger = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_BEARER = HTTPBearer(auto_error=False, description="An API key.")
_READING = ["GET", "HEAD"]
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")  # that figures tell apart
_LEFT = 499  # what logs and figures call a client who did not wait; nobody sees the response


def create_app(settings: ServeSettings, facts: ModelFacts, line: Line) -> FastAPI:
    """Put the application together.

    Args:
        settings: of the server.
        facts: of the loaded network.
        line: not started; it starts and stops with the application.
    """
    keeping = Keeping(settings.keep_seconds, settings.keep_bytes)
    room = Room(settings.limits)
    metrics = Metrics(line, keeping, room)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        line.start()
        try:
            yield
        finally:
            await line.stop()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.openapi = functools.cache(lambda: openapi_document(app, settings.limits))  # type: ignore[method-assign]
    protected = [Depends(_key_check(settings.keys))] if settings.keys else []
    unauthorised = problems(NO_KEY) if settings.keys else {}
    api = Api(settings, facts, line, keeping, room, metrics)
    router = api.router()
    app.include_router(router, dependencies=protected, responses=unauthorised)
    _add_errors(app, router.routes)

    _add_watching(app, line, metrics, keeping, protected, unauthorised)
    _add_pages(app)
    app.mount("/static", StaticFiles(directory=_STATIC))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization"],
            expose_headers=["Retry-After", SESSION_HEADER],
        )
    app.add_middleware(_Watch, metrics=metrics)
    return app


def _add_watching(
    app: FastAPI, line: Line, metrics: Metrics, keeping: Keeping, protected: list[Any], unauthorised: dict[Any, Any]
) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Whether pictures can be worked on", responses=problems(BUSY))
    async def readyz() -> Health:
        if line.error is not None:
            raise ServeError(BUSY, line.error.what, remedy=line.error.remedy, retry_after=10)
        return Health(status="ok")

    @app.head("/metrics", include_in_schema=False, dependencies=protected)
    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        dependencies=protected,
        response_class=Response,
        responses={200: {"description": "The figures.", "content": {"text/plain": {}}}, **unauthorised},
    )
    async def figures() -> Response:
        keeping.sweep()
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    @app.api_route("/openapi.json", methods=_READING, include_in_schema=False)
    async def openapi_json() -> dict[str, Any]:
        return app.openapi()

    @app.api_route("/docs", methods=_READING, include_in_schema=False)
    async def documentation() -> Response:
        return HTMLResponse(documentation_page(app.openapi()))

    @app.api_route("/", methods=_READING, include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_STATIC / "index.html")


def _key_check(keys: tuple[str, ...]) -> Any:
    async def check(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        given = credentials.credentials.encode() if credentials is not None else b""
        if not any(hmac.compare_digest(given, key.encode()) for key in keys):
            raise ServeError(NO_KEY, "no valid API key", remedy="send one as `Authorization: Bearer KEY`")

    return check


def _add_errors(app: FastAPI, included: Sequence[BaseRoute]) -> None:
    """Give every error the same shape; `included` are the routes of routers, which the application does not list."""

    def respond(error: DbcpuError, headers: dict[str, str] | None = None) -> Response:
        headers = {**(headers or {}), **problem_headers(error)}
        return Response(problem_body(error), kind_of(error).status, headers, MEDIA_TYPE)

    async def known(_: Request, error: Exception) -> Response:
        return respond(error if isinstance(error, DbcpuError) else ServeError(UNEXPECTED, str(error)))

    async def unexpected(_: Request, error: Exception) -> Response:
        return respond(ServeError(UNEXPECTED, type(error).__name__, remedy="please report it"))

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        kind = {404: NOT_FOUND, 405: METHOD}.get(status, MALFORMED)
        what = f"there is no {request.method} {request.url.path}"
        headers = {"Allow": ", ".join(_methods_at(request, [*app.routes, *included]))} if kind is METHOD else {}
        return respond(ServeError(kind, what, remedy="/docs has all addresses"), headers)

    async def invalid(_: Request, error: Exception) -> Response:
        details = error.errors() if isinstance(error, RequestValidationError) else []
        what = "; ".join(f"{detail['loc'][-1]}: {detail['msg']}" for detail in details)
        return respond(ServeError(SETTING, what))

    async def left(_: Request, __: Exception) -> Response:
        return Response(status_code=_LEFT)

    app.add_exception_handler(DbcpuError, known)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, unexpected)


def _methods_at(request: Request, routes: Sequence[BaseRoute]) -> list[str]:
    """Return the methods that the address of a request takes, of all routes there."""
    there = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    methods = {method for route in there for method in getattr(route, "methods", None) or ()}
    return sorted(methods) or _READING  # below a mount no route matches, and what is there are files


class _Watch:
    """Adds the security headers to every response, and counts it.

    Who asks for a part of a file gets the whole: none is large, and Starlette refuses wrong ranges in words of its own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        started = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                del headers["Accept-Ranges"]
                headers.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static") else "no-store")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.request(method, getattr(scope.get("route"), "path", "other"), status, seconds)
            logger.info("%s %s: %d in %d ms", method, printable(scope["path"]), status, round(seconds * 1000))
