"""Results of a whole run as one COCO document of the category `text`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dbcpu import __version__
from dbcpu.writers.markup import outline_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbcpu.geometry import Size
    from dbcpu.result import DetectionResult, TextInstance

CATEGORY = {"id": 1, "name": "text", "supercategory": "text"}


def coco(results: Iterable[DetectionResult]) -> Iterator[str]:
    """Yield the document in pieces; of a page, only what the list of pictures needs stays in memory.

    Each page is a picture of its own, with the number of the page as `page`.
    """
    head = {"info": {"description": "text detection", "version": f"dbcpu {__version__}"}, "licenses": []}
    yield json.dumps({**head, "categories": [CATEGORY]})[:-1] + ', "annotations": ['
    images = []
    annotation_id = 0
    for image_id, result in enumerate(results, start=1):
        height, width = result.image_size
        image = {"id": image_id, "file_name": result.image, "width": width, "height": height, "page": result.page}
        images.append(json.dumps(image))
        for instance in result.instances:
            annotation_id += 1
            annotation = {"id": annotation_id, "image_id": image_id, **_annotation(instance, result.image_size)}
            yield ("\n" if annotation_id == 1 else ",\n") + json.dumps(annotation, allow_nan=False)
    yield '\n], "images": [\n' + ",\n".join(images) + "\n]}\n"


def _annotation(instance: TextInstance, size: Size) -> dict[str, object]:
    points = np.array(outline_inside(instance.polygon, size), np.int32)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return {
        "category_id": CATEGORY["id"],
        "iscrowd": 0,
        "segmentation": [points.ravel().tolist()],
        "area": cv2.contourArea(points),
        "bbox": [left, top, right - left, bottom - top],
        "score": instance.score,
    }
