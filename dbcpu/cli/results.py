"""Where the results of `dbcpu detect` go: stdout, result files, overlays, crops, probability maps."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
import cv2

from dbcpu.errors import OutputError, UsageError
from dbcpu.files import make_folder, write_file
from dbcpu.writers.crops import crop_instance
from dbcpu.writers.formats import page_formats
from dbcpu.writers.json_document import json_line
from dbcpu.writers.names import output_names, page_name
from dbcpu.writers.overlay import draw_overlay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from dbcpu.image import SourceImage
    from dbcpu.result import DetectionResult
    from dbcpu.writers.formats import PageFormat

STDIN = "-"
_LINES = ("json", "jsonl")  # several pages may follow each other on stdout


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where files go, None for nowhere; without `results`, these go to stdout."""

    results: Path | None
    overlays: Path | None
    crops: Path | None
    maps: Path | None


class Results:
    """Writes the result of one page after the other.

    Args:
        inputs: all of them, as the user gave them, since names depend on each other.
        folders: created where they are missing.
        formats: of the results, names with commas between.
        rotate_crops: turn crops of vertical text by 90 degrees.

    Raises:
        UsageError: an unknown format, or results that would mix on stdout.
        OutputError: a folder cannot be created.
    """

    def __init__(
        self, inputs: Sequence[str], folders: Folders, formats: str = "json", *, rotate_crops: bool = False
    ) -> None:
        self._folders = folders
        self._formats = page_formats(formats)
        self._rotate_crops = rotate_crops
        if folders.results is None and len(self._formats) > 1:
            raise UsageError("several formats would mix on stdout", remedy="give a folder with -o")
        if folders.results is None and self._formats[0].name not in _LINES and len(inputs) > 1:
            raise UsageError("results of several pictures would mix on stdout", remedy="give a folder with -o")
        if rotate_crops and folders.crops is None:
            raise UsageError("there are no crops to rotate", remedy="give a folder with --crops")
        self._names = output_names(inputs)
        self._written: set[Path] = set()
        for folder in (folders.results, folders.overlays, folders.crops, folders.maps):
            if folder is not None:
                make_folder(folder)

    def write(
        self,
        given: str,
        page: SourceImage,
        result: DetectionResult,
        probability_map: npt.NDArray[np.float32],
    ) -> None:
        """Write one page.

        Args:
            given: the input it came from, as in `inputs`.
            page: the picture.
            result: of the page.
            probability_map: float32 (Hn, Wn) in [0, 1].

        Raises:
            OutputError: a file cannot be written.
        """
        several = not (page.page == 1 and page.is_last)
        name = page_name(self._names[given], page.page, several=several)
        if self._folders.results is None:
            self._print(result, several=several)
        else:
            for page_format in self._formats:
                self._save_text(self._folders.results, name, page_format, result)
        if self._folders.overlays is not None:
            overlay = draw_overlay(page.pixels_bgr, result)
            self._save(self._folders.overlays, name.with_name(f"{name.name}.overlay.png"), _png(overlay))
        if self._folders.crops is not None:
            for number, instance in enumerate(result.instances, start=1):
                crop = crop_instance(page.pixels_bgr, instance.polygon, rotate_vertical=self._rotate_crops)
                self._save(self._folders.crops, name / f"{number:04d}.png", _png(crop))
        if self._folders.maps is not None:
            grey = (probability_map * 255).round().astype("uint8")
            self._save(self._folders.maps, name.with_name(f"{name.name}.map.png"), _png(grey))

    def _print(self, result: DetectionResult, *, several: bool) -> None:
        page_format = self._formats[0]
        if page_format.name == "json" and (several or len(self._names) > 1):
            click.echo(json_line(result))
        elif several and page_format.name not in (*_LINES, "icdar"):  # ICDAR lines of the pages of a file may mix
            raise UsageError("pages of a file would mix on stdout", where=result.image, remedy="give a folder with -o")
        else:
            click.echo(page_format.write(result), nl=False)

    def _save_text(self, folder: Path, name: Path, page_format: PageFormat, result: DetectionResult) -> None:
        file_name = page_format.file_name(name)
        if page_format.finds_picture:
            result = replace(result, image=_seen_from((folder / file_name).parent, result.image))
        self._save(folder, file_name, page_format.write(result).encode())

    def _save(self, folder: Path, name: Path, content: bytes) -> None:
        path = folder / name
        if path in self._written:  # page 2 of `a.tif` beside a picture called `a.p0002.jpg`
            raise OutputError("two results have this name", where=path, remedy="detect these pictures one by one")
        self._written.add(path)
        if name.parent.name:
            make_folder(path.parent)
        write_file(path, content)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _seen_from(folder: Path, image: str) -> str:
    """Return the path of a picture for readers in the folder."""
    if image == STDIN:
        return image
    try:
        return os.path.relpath(image, folder)
    except ValueError:  # on Windows, another drive
        return os.path.abspath(image)  # noqa: PTH100 - does not follow links
