"""Results as hOCR 1.2: XHTML that HTML readers take as well."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from dbcpu import __version__
from dbcpu.writers.markup import box_around, outline_inside, valid_text

if TYPE_CHECKING:
    from dbcpu.result import DetectionResult
    from dbcpu.writers.markup import Box

_DOCUMENT = """\
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8" />
<title>{title}</title>
<meta name="ocr-system" content="dbcpu {version}" />
<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_line" />
</head>
<body>
<div class="ocr_page" id="page_1" title="{page}">
{area}</div>
</body>
</html>
"""


_ENCODED = str.maketrans({character: quote(character) for character in '";\t\n\r'})


def hocr(result: DetectionResult) -> str:
    """Return the instances as lines, without text, of one area around them all.

    hOCR has no place for scores of lines. Quotes, semicolons, tabs and line breaks in the picture's name, which hOCR
    cannot carry, are percent-encoded.
    """
    image = valid_text(result.image)
    height, width = result.image_size
    name = image.translate(_ENCODED)
    page = f'image "{name}"; bbox 0 0 {width} {height}; ppageno {result.page - 1}'
    return _DOCUMENT.format(title=escape(image), version=__version__, page=escape(page), area=_area(result))


def _area(result: DetectionResult) -> str:
    outlines = [outline_inside(instance.polygon, result.image_size) for instance in result.instances]
    if not outlines:
        return ""
    lines = "".join(
        f'<span class="ocr_line" id="line_{number}" title="{_bbox(box_around([outline]))}; '
        f'poly {" ".join(f"{x} {y}" for x, y in outline)}"></span>\n'
        for number, outline in enumerate(outlines, start=1)
    )
    return f'<div class="ocr_carea" id="area_1" title="{_bbox(box_around(outlines))}">\n{lines}</div>\n'


def _bbox(box: Box) -> str:
    return f"bbox {box.left} {box.top} {box.left + box.width} {box.top + box.height}"
