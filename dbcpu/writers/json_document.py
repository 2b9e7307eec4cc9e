"""Results as JSON: the schema is in the README."""

from __future__ import annotations

import json

import numpy as np

from dbcpu.geometry import Size
from dbcpu.result import SCHEMA_VERSION, DetectionResult, TextInstance


def _number(value: float) -> int | float:
    """Return whole numbers as integers: coordinates are rounded to pixels."""
    return int(value) if value == int(value) else value


def _instance(instance: TextInstance) -> dict[str, object]:
    polygon = [[_number(x), _number(y)] for x, y in instance.polygon.tolist()]
    return {"polygon": polygon, "score": instance.score}


def _head(result: DetectionResult) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "image": result.image,
        "page": result.page,
        "width": result.image_size.width,
        "height": result.image_size.height,
        "model": result.model,
        "settings": dict(result.settings),
        "truncated": result.truncated,
    }


def _dumps(value: object) -> str:
    # ASCII only: names that are no valid Unicode come out escaped instead of breaking the stream.
    return json.dumps(value, allow_nan=False)


def json_line(result: DetectionResult) -> str:
    """Return the result as one line, without its line break."""
    return _dumps({**_head(result), "instances": [_instance(instance) for instance in result.instances]})


def json_document(result: DetectionResult) -> str:
    """Return the result as a document of several lines, one an instance, with a final line break."""
    head = "".join(f"  {_dumps(key)}: {_dumps(value)},\n" for key, value in _head(result).items())
    instances = ",\n".join(f"    {_dumps(_instance(instance))}" for instance in result.instances)
    body = f"[\n{instances}\n  ]" if instances else "[]"
    return f'{{\n{head}  "instances": {body}\n}}\n'


def read_json_document(content: str | bytes) -> DetectionResult:
    """Return the result that `json_document` or `json_line` wrote.

    Raises:
        ValueError: it is none.
    """
    document = json.loads(content)
    try:
        instances = tuple(
            TextInstance(polygon=np.array(instance["polygon"], np.float32), score=instance["score"])
            for instance in document["instances"]
        )
        return DetectionResult(
            image=document["image"],
            page=document["page"],
            image_size=Size(document["height"], document["width"]),
            instances=instances,
            truncated=document["truncated"],
            model=document["model"],
            settings=document["settings"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the result of a page: {error}") from None
