"""What schemathesis sends where the OpenAPI document can only say that it is a picture."""

from __future__ import annotations

import io

import schemathesis
from hypothesis import strategies
from PIL import Image

_SIDES = strategies.integers(1, 40)


def _file(width: int, height: int, grey: int, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height), grey).save(stream, kind)
    return stream.getvalue()


def _files(*kinds: str) -> strategies.SearchStrategy[bytes]:
    return strategies.builds(_file, _SIDES, _SIDES, strategies.integers(0, 255), strategies.sampled_from(kinds))


for register, name in ((schemathesis.openapi.format, "binary"), (schemathesis.openapi.media_type, "image/*")):
    register(name, _files("PNG", "JPEG", "TIFF", "PDF"))
