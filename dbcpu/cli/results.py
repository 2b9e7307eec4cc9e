"""Where the results of `dbcpu detect` go: stdout, result files, overlays, probability maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click
import cv2

from dbcpu.errors import OutputError, UsageError
from dbcpu.files import make_folder, write_file
from dbcpu.writers.icdar import icdar_lines
from dbcpu.writers.json_document import json_document, json_line
from dbcpu.writers.names import output_names, page_name
from dbcpu.writers.overlay import draw_overlay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from dbcpu.image import SourceImage
    from dbcpu.result import DetectionResult


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where files go, None for nowhere; without `results`, these go to stdout."""

    results: Path | None
    overlays: Path | None
    maps: Path | None


class Results:
    """Writes the result of one page after the other.

    Args:
        inputs: all of them, as the user gave them, since names depend on each other.
        folders: created where they are missing.
        text_format: of the results.

    Raises:
        UsageError: ICDAR lines of several inputs on stdout.
        OutputError: a folder cannot be created.
    """

    def __init__(self, inputs: Sequence[str], folders: Folders, text_format: Literal["json", "icdar"]) -> None:
        if text_format == "icdar" and folders.results is None and len(inputs) > 1:
            raise UsageError("lines of several pictures would mix on stdout", remedy="give a folder with -o")
        self._folders = folders
        self._format = text_format
        self._names = output_names(inputs)
        self._written: set[Path] = set()
        for folder in (folders.results, folders.overlays, folders.maps):
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
            self._print(result, alone=len(self._names) == 1 and not several)
        elif self._format == "icdar":
            self._save(self._folders.results, name.with_name(f"res_{name.name}.txt"), icdar_lines(result).encode())
        else:
            self._save(self._folders.results, name.with_name(f"{name.name}.json"), json_document(result).encode())
        if self._folders.overlays is not None:
            overlay = draw_overlay(page.pixels_bgr, result)
            self._save(self._folders.overlays, name.with_name(f"{name.name}.overlay.png"), _png(overlay))
        if self._folders.maps is not None:
            grey = (probability_map * 255).round().astype("uint8")
            self._save(self._folders.maps, name.with_name(f"{name.name}.map.png"), _png(grey))

    def _print(self, result: DetectionResult, *, alone: bool) -> None:
        if self._format == "icdar":
            click.echo(icdar_lines(result), nl=False)
        elif alone:
            click.echo(json_document(result), nl=False)
        else:
            click.echo(json_line(result))

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
