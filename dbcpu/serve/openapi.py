"""The OpenAPI document: what FastAPI cannot read off the routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from dbcpu import __version__
from dbcpu.serve.models import BatchLine, DetectResponse, Models, Problem
from dbcpu.serve.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from pydantic import BaseModel

    from dbcpu.serve.problems import Kind
    from dbcpu.serve.settings import Limits

_BINARY = {"type": "string", "format": "binary"}
_SCHEMAS = "#/components/schemas/"
LINES = "application/x-ndjson"
SESSION_HEADER = "Dbcpu-Session"
_TOKEN = {"token": f"$response.header.{SESSION_HEADER}"}
# What a kept picture can be asked for: parts of a response's description.
SESSION_LINKS = {
    "headers": {
        SESSION_HEADER: {"description": "Token of what is kept, with `keep`.", "schema": {"type": "string"}},
    },
    "links": {
        "again": {"operationId": "detect_again", "parameters": _TOKEN},
        "picture": {"operationId": "page_picture", "parameters": {**_TOKEN, "page": "$response.body#/pages/0/page"}},
        "forget": {"operationId": "forget", "parameters": _TOKEN},
    },
}


def described(
    model: type[BaseModel], description: str, also: Sequence[str] = (), *, media_type: str = "application/json"
) -> dict[str, Any]:
    """Return the description of a response of a model, or `also` of other media types."""
    others = {other: {"schema": _BINARY if other.startswith("image/") else {"type": "string"}} for other in also}
    return {
        "description": description,
        "content": {media_type: {"schema": {"$ref": _SCHEMAS + model.__name__}}, **others},
    }


def problems(*kinds: Kind, lines: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of the problems that a route may answer with, also as `lines` of a batch."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + Problem.__name__}}}
    if lines:
        content[LINES] = {"schema": {"$ref": _SCHEMAS + BatchLine.__name__}}
    by_status: dict[int, list[Kind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; or: ".join(kind.title for kind in same),
            "content": content,
        }
        for status, same in by_status.items()
    }


def picture_body(*, several: bool) -> dict[str, Any]:
    """Return the description of a request that brings pictures.

    Files of any type are taken for what they are; the document names the one that tools can make examples of.
    """
    file = {"type": "array", "items": _BINARY, "minItems": 1} if several else _BINARY
    form = {"type": "object", "required": ["file"], "properties": {"file": file}, "additionalProperties": False}
    raw = {} if several else {"image/*": {"schema": _BINARY}}
    multipart = {"schema": form, "encoding": {"file": {"contentType": "image/*"}}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": multipart, **raw}}}


def openapi_document(app: FastAPI, limits: Limits) -> dict[str, Any]:
    """Return the document, with the models that only the descriptions above refer to, and this server's limits."""
    document = get_openapi(
        title="dbcpu",
        version=__version__,
        summary="Finds text in pictures.",
        routes=app.routes,
    )
    _, definitions = models_json_schema(
        [(model, "serialization") for model in (DetectResponse, BatchLine, Models, Problem)],
        ref_template=_SCHEMAS + "{model}",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    for operation in (operation for methods in document["paths"].values() for operation in methods.values()):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "short_side":
                parameter["schema"]["anyOf"][0]["maximum"] = limits.largest_short_side
    return document
