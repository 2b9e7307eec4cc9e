"""Where the results of `dbcpu detect` go: stdout, result files, overlays, crops, probability maps."""

from __future__ import annotations

import itertools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbcpu.errors import OutputError, UsageError
from dbcpu.files import make_folder, write_file
from dbcpu.writers.formats import page_formats
from dbcpu.writers.json_document import json_line
from dbcpu.writers.names import STDIN, output_names, page_name, seen_from
from dbcpu.writers.page_files import PageParts, crop_names, page_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from dbcpu.image import SourceImage
    from dbcpu.result import DetectionResult

logger = logging.getLogger(__name__)

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
        self._parts = PageParts(
            formats=() if folders.results is None else self._formats,
            overlay=None if folders.overlays is None else "png",
            crops=folders.crops is not None,
            rotate_crops=rotate_crops,
            probability_map=folders.maps is not None,
        )
        if folders.results is None and len(self._formats) > 1:
            raise UsageError("several formats would mix on stdout", remedy="give a folder with -o")
        if folders.results is None and self._formats[0].name not in _LINES and len(inputs) > 1:
            raise UsageError("results of several pictures would mix on stdout", remedy="give a folder with -o")
        if rotate_crops and folders.crops is None:
            raise UsageError("there are no crops to rotate", remedy="give a folder with --crops")
        self._names = output_names(inputs)
        self._written: dict[Path, tuple[Path, int]] = {}
        self._inputs = {_identity(Path(given)) for given in inputs if given != STDIN} - {None}
        places = {
            "result": folders.results,
            "overlay": folders.overlays,
            "crop": folders.crops,
            "map": folders.maps,
        }
        self._places = {kind: folder for kind, folder in places.items() if folder is not None}
        for folder in self._places.values():
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
            UsageError: it would replace one of the inputs, or several results would mix on stdout.
        """
        several = not (page.page == 1 and page.is_last)
        name = page_name(self._names[given], page.page, several=several)
        if self._folders.results is None:
            self._print(result, several=several)

        def picture_from(file: Path) -> str:
            return seen_from(self._places["result"] / file, result.image)

        for kind, file, content in page_files(
            self._parts, name, page.pixels_bgr, result, probability_map, picture_from
        ):
            self._save(self._places[kind], file, content, of=(self._names[given], page.page))
        if self._parts.crops:
            self._tell_of_older_crops(name, beyond=len(result.instances))

    def _print(self, result: DetectionResult, *, several: bool) -> None:
        page_format = self._formats[0]
        if page_format.name == "json" and (several or len(self._names) > 1):
            _echo(f"{json_line(result)}\n")
        elif several and page_format.name not in (*_LINES, "icdar"):  # ICDAR lines of the pages of a file may mix
            raise UsageError("pages of a file would mix on stdout", where=result.image, remedy="give a folder with -o")
        else:
            _echo(page_format.write(result))

    def _save(self, folder: Path, name: Path, content: bytes, *, of: tuple[Path, int]) -> None:
        path = folder / name
        if self._written.setdefault(path, of) != of:  # page 2 of a file `a` beside a file `a.p0002`, without endings
            raise OutputError("two results have this name", where=path, remedy="detect these pictures one by one")
        self._check_no_input(path)
        if name.parent.name:
            make_folder(path.parent)
        write_file(path, content)

    def _tell_of_older_crops(self, name: Path, *, beyond: int) -> None:
        """Warn of what an earlier run that found more left; it may be somebody else's, so it stays."""
        following = next(itertools.islice(crop_names(self._places["crop"] / name), beyond, None))
        if following.is_file():
            logger.warning("%s: not of this run, which has %d crops of the page", following, beyond)

    def _check_no_input(self, path: Path) -> None:
        if _identity(path) in self._inputs:
            raise UsageError("would replace a picture of this run", where=path, remedy="give another folder")


def _echo(text: str) -> None:
    """Print the bytes that a file would hold: XML and HTML say that they are UTF-8, whatever the locale."""
    has_bytes = hasattr(sys.stdout, "buffer")
    click.echo(text.encode() if has_bytes else text, nl=False)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what is the same for all names of a file; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # reading it will say why
        return None
    return status.st_dev, status.st_ino
