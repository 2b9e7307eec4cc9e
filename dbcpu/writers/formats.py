"""The formats by name: those of one page, and those of a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

from dbcpu.errors import UsageError
from dbcpu.result import DetectionResult
from dbcpu.writers.alto import alto
from dbcpu.writers.coco import coco
from dbcpu.writers.csv_table import csv_table
from dbcpu.writers.hocr import hocr
from dbcpu.writers.icdar import icdar_lines
from dbcpu.writers.json_document import json_document, json_line
from dbcpu.writers.labelme import labelme
from dbcpu.writers.page_xml import page_xml

PathT = TypeVar("PathT", bound=PurePath)


@dataclass(frozen=True, kw_only=True)
class PageFormat:
    """A format with one file per page.

    Attributes:
        name: as users ask for it.
        suffix: what the file's name ends in, another one for each format.
        write: gives the content of the file.
        prefix: what the file's name begins with.
        finds_picture: whether tools look for the picture, by its name in the file, from the folder of the file.
    """

    name: str
    suffix: str
    write: Callable[[DetectionResult], str]
    prefix: str = ""
    finds_picture: bool = False

    def file_name(self, name: PathT) -> PathT:
        """Return the name of the file for a page of that name."""
        return name.with_name(f"{self.prefix}{name.name}{self.suffix}")


@dataclass(frozen=True, kw_only=True)
class RunFormat:
    """A format with one file for all pages of a run.

    Attributes:
        name: as users ask for it.
        file_name: of the file.
        write: gives the content of the file in pieces, while the results arrive.
    """

    name: str
    file_name: str
    write: Callable[[Iterable[DetectionResult]], Iterator[str]]


def _json_lines(results: Iterable[DetectionResult]) -> Iterator[str]:
    for result in results:
        yield f"{json_line(result)}\n"


def _of_one(write: Callable[[Iterable[DetectionResult]], Iterator[str]]) -> Callable[[DetectionResult], str]:
    return lambda result: "".join(write([result]))


PAGE_FORMATS = {
    page_format.name: page_format
    for page_format in (
        PageFormat(name="json", suffix=".json", write=json_document),
        PageFormat(name="jsonl", suffix=".jsonl", write=_of_one(_json_lines)),
        PageFormat(name="icdar", prefix="res_", suffix=".txt", write=icdar_lines),
        PageFormat(name="labelme", suffix=".labelme.json", write=labelme, finds_picture=True),
        PageFormat(name="page-xml", suffix=".page.xml", write=page_xml, finds_picture=True),
        PageFormat(name="alto", suffix=".alto.xml", write=alto, finds_picture=True),
        PageFormat(name="hocr", suffix=".hocr", write=hocr, finds_picture=True),
        PageFormat(name="csv", suffix=".csv", write=_of_one(csv_table)),
    )
}
RUN_FORMATS = {
    run_format.name: run_format
    for run_format in (
        RunFormat(name="jsonl", file_name="results.jsonl", write=_json_lines),
        RunFormat(name="coco", file_name="coco.json", write=coco),
        RunFormat(name="csv", file_name="results.csv", write=csv_table),
    )
}


def page_formats(names: str) -> tuple[PageFormat, ...]:
    """Return the formats of a comma-separated list, each once.

    Raises:
        UsageError: an unknown name.
    """
    asked = dict.fromkeys(name.strip() for name in names.split(","))
    for name in asked:
        if name not in PAGE_FORMATS:
            raise UsageError(f"no format {name!r}", remedy=f"known: {', '.join(PAGE_FORMATS)}")
    return tuple(PAGE_FORMATS[name] for name in asked)
