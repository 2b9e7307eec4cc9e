"""The API's documentation as one page without scripts, made from the OpenAPI document."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from dbcpu.serve.problems import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dbcpu: the API</title>
<link rel="stylesheet" href="static/style.css">
<link rel="icon" href="static/icon.svg">
</head>
<body>
<main class="documentation">
<h1>dbcpu: the API</h1>
<p>For programs, the same as <a href="openapi.json">OpenAPI</a>. For people, <a href="./">the page</a>.</p>
<pre>curl --data-binary @page.jpg 'http://127.0.0.1:8000/v1/detect?score_threshold=0.5'
curl -F file=@page.jpg -F file=@scan.tif http://127.0.0.1:8000/v1/detect/batch</pre>
"""


def documentation_page(document: dict[str, Any]) -> str:
    """Return the page for an OpenAPI document."""
    return _HEAD + "".join([*_operations(document), *_schemas(document), *_problems()]) + "</main>\n</body>\n</html>\n"


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>\n<p>{escape(operation['summary'])}."
            yield f" {_text(operation.get('description', ''))}</p>\n"
            if "security" in operation:
                yield "<p>With the header <code>Authorization: Bearer KEY</code>.</p>\n"
            body = operation.get("requestBody", {}).get("content", {})
            if body:
                yield f"<p>Body: {', '.join(f'<code>{escape(kind)}</code>' for kind in body)}.</p>\n"
            parameters = operation.get("parameters", [])
            if parameters:
                rows = ((p["name"], p["in"], _type(p["schema"]), p.get("description", "")) for p in parameters)
                yield _table(("parameter", "in", "type", "meaning"), rows)
            yield _table(
                ("status", "body", "meaning"),
                (
                    (status, ", ".join(_content(kind, of) for kind, of in answer.get("content", {}).items()), text)
                    for status, answer in operation["responses"].items()
                    for text in [answer["description"]]
                ),
            )


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<h2 id="schema-{escape(name)}">{escape(name)}</h2>\n<p>{_text(schema.get("description", ""))}</p>\n'
        required = schema.get("required", [])
        rows = (
            (field, _type(of) + ("" if field in required else ", optional"), of.get("description", ""))
            for field, of in schema["properties"].items()
        )
        yield _table(("field", "type", "meaning"), rows)


def _problems() -> Iterator[str]:
    yield "<h2>Problems</h2>\n<p>The <code>type</code> of a problem leads here.</p>\n"
    yield "<table>\n<tr><th>type</th><th>status</th><th>title</th></tr>\n"
    for kind in KINDS:
        yield f'<tr id="problem-{kind.slug}"><td><code>{kind.slug}</code></td><td>{kind.status}</td>'
        yield f"<td>{escape(kind.title)}</td></tr>\n"
    yield "</table>\n"


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["".join(f"<th>{name}</th>" for name in heading)]
    lines += ["".join(f"<td>{_text(cell)}</td>" for cell in row) for row in rows]
    return "<div><table>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table></div>\n"


def _text(words: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(words))


def _content(media_type: str, content: dict[str, Any]) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f"{media_type} ({name})" if name else media_type


def _type(schema: dict[str, Any]) -> str:
    """Say in words what a value may be."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    return " ".join([schema.get("type", "any"), *(f"{sign} {schema[key]}" for key, sign in signs if key in schema)])
