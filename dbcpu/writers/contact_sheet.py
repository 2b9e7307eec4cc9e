"""A page to look through the results of a run: static HTML that needs neither a server nor the network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import cv2
import numpy as np

from dbcpu.writers.markup import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from dbcpu.result import DetectionResult

_TEMPLATE = Path(__file__).with_suffix(".html")
_THUMBNAIL_SIDE = 384  # pixels, for 16 rem on a screen of some density
_JPEG_QUALITY = 80
_OUTLINE = (32, 32, 208)  # blue, green, red


@dataclass(frozen=True, kw_only=True)
class SheetPage:
    """What the sheet shows of one page.

    Attributes:
        name: its heading.
        picture: path of the picture to open, best an overlay, from the folder of the sheet; None for nothing.
        thumbnail: path of a small picture likewise, such as `draw_thumbnail` makes.
        instances: how many there are.
        lowest_score: of the instances, None where there are none.
        error: why there is no result, or None.
    """

    name: str
    picture: str | None = None
    thumbnail: str | None = None
    instances: int = 0
    lowest_score: float | None = None
    error: str | None = None


def contact_sheet(pages: Iterable[SheetPage], *, title: str) -> Iterator[str]:
    """Yield the document in pieces, while the pages arrive.

    Pictures load when they come into sight. Pages can be searched by name, filtered and sorted, all by keyboard.
    """
    head, tail = _TEMPLATE.read_text(encoding="utf-8").replace("@title@", escape(valid_text(title))).split("@pages@\n")
    yield head
    for page in pages:
        yield _item(page)
    yield tail


def draw_thumbnail(pixels_bgr: npt.NDArray[np.uint8], result: DetectionResult | None = None) -> bytes:
    """Return a small JPEG of a picture, uint8 (H, W, 3), blue first, with the outlines of a result, if there is one."""
    height, width = pixels_bgr.shape[:2]
    scale = min(1.0, _THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels_bgr, size, interpolation=cv2.INTER_AREA)
    if result is not None:
        outlines = [np.round(instance.polygon * scale).astype(np.int32) for instance in result.instances]
        cv2.polylines(small, outlines, True, _OUTLINE, 1, cv2.LINE_AA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _item(page: SheetPage) -> str:
    if page.error is not None:
        attributes, words = ' class="failed"', page.error
    elif page.lowest_score is not None:
        attributes = f' data-count="{page.instances}" data-score="{page.lowest_score:.4f}"'
        words = f"{page.instances} instances, lowest score {page.lowest_score:.2f}"
    else:
        attributes, words = ' data-count="0"', "no text"
    link = ' tabindex="0"' if page.picture is None else f' href="{_address(page.picture)}"'
    if page.thumbnail is None:
        image = '<span class="none"></span>'
    else:
        image = f'<img loading="lazy" decoding="async" alt="" src="{_address(page.thumbnail)}">'
    name, words = escape(valid_text(page.name)), escape(valid_text(words))
    return f"<li{attributes}><a{link}>{image}<p><b>{name}</b><small>{words}</small></p></a></li>\n"


def _address(path: str) -> str:
    """Return a relative path as browsers take it; also names that are not UTF-8, or look like another scheme."""
    return "./" + quote(os.fsencode(path.replace(os.sep, "/")))
