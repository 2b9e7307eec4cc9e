"""Results as ALTO 4.3, the layout format of libraries."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from dbcpu import __version__
from dbcpu.writers.markup import box_around, outline_inside, valid_text, xml_document

if TYPE_CHECKING:
    from dbcpu.result import DetectionResult
    from dbcpu.writers.markup import Box

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"


def alto(result: DetectionResult) -> str:
    """Return the instances as text lines, without text, of one block around them all.

    ALTO has no place for scores of lines.
    """
    root = ET.Element("alto", xmlns=NAMESPACE, SCHEMAVERSION="4.3")
    _add_description(root, result.image)
    height, width = result.image_size
    size = {"HEIGHT": str(height), "WIDTH": str(width)}
    layout = ET.SubElement(root, "Layout")
    page = ET.SubElement(layout, "Page", size, ID="page_1", PHYSICAL_IMG_NR=str(result.page))
    space = ET.SubElement(page, "PrintSpace", size, HPOS="0", VPOS="0")
    outlines = [outline_inside(instance.polygon, result.image_size) for instance in result.instances]
    if outlines:
        block = ET.SubElement(space, "TextBlock", _position(box_around(outlines)), ID="block_1")
        for number, outline in enumerate(outlines, start=1):
            position = _position(box_around([outline]))
            line = ET.SubElement(block, "TextLine", position, ID=f"line_{number}")
            points = " ".join(f"{x},{y}" for x, y in outline)
            ET.SubElement(ET.SubElement(line, "Shape"), "Polygon", POINTS=points)
            ET.SubElement(line, "String", position, CONTENT="")  # the schema wants one
    return xml_document(root)


def _add_description(root: ET.Element, image: str) -> None:
    description = ET.SubElement(root, "Description")
    ET.SubElement(description, "MeasurementUnit").text = "pixel"
    source = ET.SubElement(description, "sourceImageInformation")
    ET.SubElement(source, "fileName").text = valid_text(image)
    software = ET.SubElement(ET.SubElement(description, "Processing", ID="processing_1"), "processingSoftware")
    ET.SubElement(software, "softwareName").text = "dbcpu"
    ET.SubElement(software, "softwareVersion").text = __version__


def _position(box: Box) -> dict[str, str]:
    return {"HPOS": str(box.left), "VPOS": str(box.top), "WIDTH": str(box.width), "HEIGHT": str(box.height)}
