"""Results as PAGE-XML 2019, the ground truth and exchange format of Transkribus, eScriptorium, kraken and OCR-D."""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from dbcpu import __version__
from dbcpu.writers.markup import box_around, outline_inside, valid_text, xml_document

if TYPE_CHECKING:
    from dbcpu.result import DetectionResult
    from dbcpu.writers.markup import Outline

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


def page_xml(result: DetectionResult) -> str:
    """Return the instances as text lines, with their scores, of one region around them all.

    The schema demands the time of writing, so two files of the same result differ in it.
    """
    root = ET.Element("PcGts", xmlns=NAMESPACE)
    _add_metadata(root)
    page = ET.SubElement(root, "Page", imageFilename=valid_text(result.image))
    page.set("imageWidth", str(result.image_size.width))
    page.set("imageHeight", str(result.image_size.height))
    outlines = [outline_inside(instance.polygon, result.image_size) for instance in result.instances]
    if outlines:
        region = ET.SubElement(page, "TextRegion", id="region_1")
        left, top, width, height = box_around(outlines)
        right, bottom = left + width - 1, top + height - 1
        ET.SubElement(region, "Coords", points=_points([(left, top), (right, top), (right, bottom), (left, bottom)]))
        for number, (outline, instance) in enumerate(zip(outlines, result.instances, strict=True), start=1):
            line = ET.SubElement(region, "TextLine", id=f"line_{number}")
            ET.SubElement(line, "Coords", points=_points(outline), conf=f"{instance.score:.4f}")
    return xml_document(root)


def _add_metadata(root: ET.Element) -> None:
    metadata = ET.SubElement(root, "Metadata")
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    ET.SubElement(metadata, "Creator").text = f"dbcpu {__version__}"
    ET.SubElement(metadata, "Created").text = now
    ET.SubElement(metadata, "LastChange").text = now


def _points(outline: Outline) -> str:
    return " ".join(f"{x},{y}" for x, y in outline)
