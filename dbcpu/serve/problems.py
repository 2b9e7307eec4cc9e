"""Errors as the API tells them: RFC 9457 problem documents, with the words of the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dbcpu.errors import ConfigError, DbcpuError, ImageError, NoSuchPageError, UsageError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        slug: short name; `/docs#problem-SLUG` is the problem's type.
        status: of the response.
        title: the same for all problems of the kind.
    """

    slug: str
    status: int
    title: str


MALFORMED = Kind("malformed", 400, "The request is malformed")
NO_KEY = Kind("key", 401, "The request carries no valid API key")
NOT_FOUND = Kind("not-found", 404, "There is no such thing here")
METHOD = Kind("method", 405, "The address does not take this method")
TOO_SLOW = Kind("slow-client", 408, "The request took too long to arrive")
TOO_LARGE = Kind("too-large", 413, "The request is over a limit of this server")
PICTURE = Kind("picture", 422, "The picture cannot be read")
SETTING = Kind("setting", 422, "A setting is unknown, out of range or does not fit")
UNEXPECTED = Kind("unexpected", 500, "Something went wrong that should not")
WORKER_DIED = Kind("worker-died", 500, "The process that worked on the picture died")
BUSY = Kind("busy", 503, "The server has no room for more work now")
DEADLINE = Kind("deadline", 504, "The picture took too long")
KINDS = (
    MALFORMED,
    NO_KEY,
    NOT_FOUND,
    METHOD,
    TOO_SLOW,
    TOO_LARGE,
    PICTURE,
    SETTING,
    UNEXPECTED,
    WORKER_DIED,
    BUSY,
    DEADLINE,
)


class ServeError(DbcpuError):
    """An error that only a server knows.

    Args:
        kind: which.
        what: what is wrong, a clause without a full stop.
        where: the picture, parameter or header it is wrong in.
        remedy: what the client can do about it.
        retry_after: seconds until it makes sense to try again.
    """

    def __init__(
        self,
        kind: Kind,
        what: str,
        *,
        where: object = None,
        remedy: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.kind = kind
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.kind, self.what, self.where, self.remedy, self.retry_after)


def _rebuild(kind: Kind, what: str, where: str | None, remedy: str | None, retry_after: int | None) -> ServeError:
    return ServeError(kind, what, where=where, remedy=remedy, retry_after=retry_after)


def kind_of(error: DbcpuError) -> Kind:
    """Return the kind of any error."""
    if isinstance(error, ServeError):
        return error.kind
    if isinstance(error, NoSuchPageError):
        return NOT_FOUND
    if isinstance(error, ImageError):
        return PICTURE
    return SETTING if isinstance(error, (UsageError, ConfigError)) else UNEXPECTED


def problem(error: DbcpuError) -> dict[str, object]:
    """Return the problem document of an error."""
    kind = kind_of(error)
    return {"type": f"/docs#problem-{kind.slug}", "title": kind.title, "status": kind.status, "detail": str(error)}


def problem_body(error: DbcpuError) -> bytes:
    """Return the problem document as JSON."""
    return json.dumps(problem(error)).encode()


def problem_headers(error: DbcpuError) -> dict[str, str]:
    """Return the headers that belong to the problem, beside its media type."""
    headers = {}
    if isinstance(error, ServeError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if kind_of(error) is NO_KEY:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
