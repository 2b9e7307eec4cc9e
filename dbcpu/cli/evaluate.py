"""`dbcpu evaluate`: detections compared with ground truth, in the numbers of the original's evaluation."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dbcpu.cli.options import (
    PATH,
    checkpoint_options,
    postprocess_options,
    resize_options,
    speed_options,
    verbosity_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbcpu.cli.scores import Sweep
    from dbcpu.detector import Detector
    from dbcpu.evaluate import PageScore, Protocol
    from dbcpu.truth import Detection, TruthSet

    Found = Mapping[str, Sequence[Detection]]  # by the stems of the pages

logger = logging.getLogger(__name__)
THRESHOLDS = [hundredth / 100 for hundredth in range(100)]  # of --sweep
LONGEST_NAME = 255 - len(".png")  # bytes of a file's name


@dataclass(frozen=True, kw_only=True, eq=False)
class _ScoredSet:
    """A set with what was found on its pages, but for those that failed, and what it is worth."""

    name: str
    truth: TruthSet
    found: Found
    scores: Mapping[str, PageScore]


@click.command(short_help="Score detections against ground truth.")
@click.argument("truths", nargs=-1, required=True, type=PATH, metavar="TRUTH...")
@click.option(
    "--weights",
    type=PATH,
    metavar="FILE",
    help="Old checkpoint or model file to detect with [default: the model dbcpu carries].",
)
@click.option(
    "--detections",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Score these instead: STEM.json, as detect writes it, or res_STEM.txt; once for each TRUTH, in their order.",
)
@click.option(
    "--protocol",
    type=click.Choice(["iou", "deteval"]),
    default="iou",
    show_default=True,
    help="One to one at IoU 0.5 as in ICDAR 2015, or DetEval, which also takes split and merged regions.",
)
@click.option("--pages", "with_pages", is_flag=True, help="Show every page, not only the sets.")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON document.")
@click.option("--sweep", is_flag=True, help="Find the best score threshold: show F for one after the other.")
@click.option("--worst", type=PATH, metavar="DIR", help="Draw the pages with the lowest F there: hits and misses.")
@click.option("-n", "--number", type=click.IntRange(1), default=10, show_default=True, help="Pages to draw.")
@checkpoint_options
@resize_options
@postprocess_options
@speed_options
@verbosity_options
def evaluate(
    truths: tuple[Path, ...],
    weights: Path | None,
    detections: tuple[Path, ...],
    protocol: Protocol,
    with_pages: bool,
    as_json: bool,
    sweep: bool,
    worst: Path | None,
    number: int,
    threads: int | None,
    **settings: Any,
) -> None:
    """Print precision, recall and F of detections on each TRUTH.

    A TRUTH is a folder of gt_STEM.txt files, or one that holds gts/ with them and images/ with the pictures. Their
    lines are x1,y1,...,xn,yn,text, where the last field is always text, and ### marks what need not be found.

    Pictures are taken as they are stored: ground truth ignores EXIF, and so does this. For --detections, detect with
    --ignore-exif.
    """
    from dbcpu.errors import SomeImagesFailedError
    from dbcpu.files import make_folder
    from dbcpu.truth import read_detections, read_truth

    _check_options(truths, weights, detections, settings, sweep=sweep)
    sets = [read_truth(folder) for folder in truths]
    if worst is not None:
        make_folder(worst)
    if detections:
        found: list[Found] = [read_detections(folder, one.pages) for folder, one in zip(detections, sets, strict=True)]
        threshold = -math.inf
    else:
        detector = _load(weights, threads, settings)
        threshold = detector.config.postprocess.score_threshold
        if sweep:
            postprocess = replace(detector.config.postprocess, score_threshold=0.0)
            detector.config = replace(detector.config, postprocess=postprocess)
        found = [_detect(detector, truth) for truth in sets]
    names = _names(truths, sets)
    scored = [_score(*one, protocol, threshold) for one in zip(names, sets, found, strict=True)]
    swept = _sweep(names, sets, found, protocol) if sweep else None
    _print(scored, swept, protocol, with_pages=with_pages, as_json=as_json)
    if worst is not None:
        _draw_worst(scored, worst, number)
    failed = sum(len(truth.pages) - len(pages) for truth, pages in zip(sets, found, strict=True))
    if failed:
        raise SomeImagesFailedError(f"{failed} pages failed", remedy="they count as pages where nothing was found")


def _check_options(
    truths: Sequence[Path],
    weights: Path | None,
    detections: Sequence[Path],
    settings: Mapping[str, Any],
    *,
    sweep: bool,
) -> None:
    from dbcpu.errors import UsageError

    if weights is not None and detections:
        raise UsageError("--weights and --detections exclude each other")
    if detections and len(detections) != len(truths):
        what = f"{len(truths)} TRUTH and {len(detections)} --detections"
        raise UsageError(what, remedy="give --detections once for each, in their order")
    context = click.get_current_context()
    if detections and any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in settings):
        raise UsageError("options of the detector have no effect on --detections")
    if sweep and settings["score_threshold"] is not None:
        raise UsageError("--sweep and --score-threshold exclude each other")


def _names(folders: Sequence[Path], sets: Sequence[TruthSet]) -> list[str]:
    """Return what the sets are called: their folders, by their paths where two share a name, numbered if need be."""
    names = [truth.name for truth in sets]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    counts = [names[:index].count(name) for index, name in enumerate(names, 1)]
    return [name if count == 1 else f"{name} #{count}" for name, count in zip(names, counts, strict=True)]


def _load(weights: Path | None, threads: int | None, settings: Mapping[str, Any]) -> Detector:
    from dbcpu.detector import load_detector
    from dbcpu.engine.memory import keep_freed_memory
    from dbcpu.engine.threads import available_cpus

    if weights is None and logger.isEnabledFor(logging.WARNING):
        click.echo("dbcpu: neither --weights nor --detections given: using the default model", err=True)
    keep_freed_memory()
    return load_detector(weights, threads=threads or available_cpus(), **settings)


def _detect(detector: Detector, truth: TruthSet) -> Found:
    """Detect on the pictures of a set; those that cannot be read are named on stderr and left out."""
    from rich.console import Console
    from rich.progress import track

    from dbcpu.errors import ImageError
    from dbcpu.truth import Detection

    quiet = not sys.stderr.isatty() or not logger.isEnabledFor(logging.WARNING)
    found = {}
    for stem in track(truth.pages, truth.name, console=Console(stderr=True), transient=True, disable=quiet):
        try:
            instances = detector.detect(truth.picture(stem), ignore_exif=True).instances
        except ImageError as error:
            click.echo(f"dbcpu: error: {error}", err=True)
            continue
        found[stem] = [Detection(polygon=instance.polygon, score=instance.score) for instance in instances]
    return found


def _score(name: str, truth: TruthSet, found: Found, protocol: Protocol, threshold: float) -> _ScoredSet:
    """Score the detections of at least a score, and those without one."""
    from dbcpu.evaluate import measure_overlaps, score_page

    kept = {
        stem: [one for one in detections if one.score is None or one.score >= threshold]
        for stem, detections in found.items()
    }
    scores = {
        stem: score_page(measure_overlaps(instances, kept.get(stem, ())), protocol)
        for stem, instances in truth.pages.items()
    }
    return _ScoredSet(name=name, truth=truth, found=kept, scores=scores)


def _sweep(names: Sequence[str], sets: Sequence[TruthSet], found: Sequence[Found], protocol: Protocol) -> Sweep:
    from dbcpu.cli.scores import Sweep
    from dbcpu.errors import UsageError
    from dbcpu.evaluate import measure_overlaps, sweep_score_threshold

    f = {}
    for name, truth, pages in zip(names, sets, found, strict=True):
        bare = next((stem for stem, detections in pages.items() if any(d.score is None for d in detections)), None)
        if bare is not None:
            raise UsageError("--sweep needs scores, and these detections have none", where=bare)
        overlaps = [measure_overlaps(instances, pages.get(stem, ())) for stem, instances in truth.pages.items()]
        f[name] = sweep_score_threshold(overlaps, protocol, THRESHOLDS)
    return Sweep(thresholds=THRESHOLDS, f=f)


def _print(
    scored: Sequence[_ScoredSet], sweep: Sweep | None, protocol: Protocol, *, with_pages: bool, as_json: bool
) -> None:
    from dbcpu.cli.scores import SetScores, score_document, score_table, sweep_table

    sets = [SetScores(name=one.name, pages={stem: s.tally for stem, s in one.scores.items()}) for one in scored]
    if as_json:
        document = {"protocol": protocol, **score_document(sets, sweep, with_pages=with_pages)}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(score_table(sets, with_pages=with_pages))
    if sweep is not None:
        click.echo("\n" + sweep_table(sweep))


def _draw_worst(scored: Sequence[_ScoredSet], folder: Path, number: int) -> None:
    """Draw the pages of the lowest F, of equals those with more to count."""
    import cv2

    from dbcpu.files import write_file
    from dbcpu.image import read_image
    from dbcpu.writers.verdicts import draw_verdicts

    def rank(page: tuple[_ScoredSet, str]) -> tuple[float, int]:
        tally = page[0].scores[page[1]].tally
        return tally.f, -tally.truths - tally.detections

    pages = sorted(((one, stem) for one in scored for stem in one.found), key=rank)
    for place, (one, stem) in enumerate(pages[:number], 1):
        source = next(read_image(one.truth.picture(stem), ignore_exif=True))
        truths = [instance.polygon for instance in one.truth.pages[stem]]
        detections = [detection.polygon for detection in one.found[stem]]
        drawn = draw_verdicts(source.pixels_bgr, truths, detections, one.scores[stem])
        name = f"{place:02d}_{one.truth.name}_{stem}"
        while len(os.fsencode(name)) > LONGEST_NAME:
            name = name[:-1]
        write_file(folder / f"{name}.png", cv2.imencode(".png", drawn)[1].tobytes())
