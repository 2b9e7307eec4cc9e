"""Results as LabelMe's annotation files, to correct them by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbcpu.writers.markup import outline_inside

if TYPE_CHECKING:
    from dbcpu.result import DetectionResult

_VERSION = "5.0.0"  # of LabelMe, whose fields these are


def labelme(result: DetectionResult) -> str:
    """Return the instances as polygons labelled `text`; LabelMe looks for the picture from the file's own folder."""
    shapes: list[dict[str, object]] = [
        {
            "label": "text",
            "points": outline_inside(instance.polygon, result.image_size),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "score": instance.score,
        }
        for instance in result.instances
    ]
    document: dict[str, object] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": result.image,
        "imageData": None,
        "imageHeight": result.image_size.height,
        "imageWidth": result.image_size.width,
    }
    return json.dumps(document, allow_nan=False, indent=1) + "\n"
