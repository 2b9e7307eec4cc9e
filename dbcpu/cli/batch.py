"""`dbcpu batch`: folders of scans, through the night if need be."""

from __future__ import annotations

import contextlib
import logging
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbcpu.cli.merge import merge
from dbcpu.cli.options import (
    FiniteRange,
    checkpoint_options,
    order_option,
    postprocess_options,
    precision_option,
    resize_options,
    source_options,
    tile_option,
    verbosity_options,
    weights_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import BinaryIO

    from dbcpu.batch.local import Engine
    from dbcpu.batch.shards import Shard
    from dbcpu.batch.store import Results
    from dbcpu.batch.work import PageWork
    from dbcpu.reading_order import ReadingOrder
    from dbcpu.writers.page_files import PictureFormat

    _ShardParameter = click.ParamType[Shard]
else:
    _ShardParameter = click.ParamType  # no generic class before click 8.2

logger = logging.getLogger(__name__)
_DEFAULT_SECONDS = 300.0
_DEFAULT_BYTES = 4 << 30


class _BatchCommand(click.Command):
    """`dbcpu batch`, whose first word may be a command of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As `click.Command.make_context`."""
        if args[:1] == ["merge"]:
            return merge.make_context(f"{info_name} merge", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


class _ShardType(_ShardParameter):
    """`I/N`, as in 3/20."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """Return the shard, or fail as click does."""
        from dbcpu.batch.shards import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=_BatchCommand, short_help="Find the text in folders of scans, and go on where a run stopped.")
@click.argument("given", nargs=-1, metavar="[SOURCE]...")
@click.argument("results", type=click.Path(), metavar="RESULTS")
@click.option(
    "--from-list",
    "lists",
    multiple=True,
    type=click.File("rb"),
    metavar="FILE",
    help="Also the files it names, one a line or ended by null bytes; - is stdin.",
)
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Of folders, only files that match, whatever they end in."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Of folders, leave out files and folders that match.")
@weights_option
@checkpoint_options
@resize_options
@tile_option("auto")
@postprocess_options
@source_options
@click.option(
    "--format",
    "formats",
    default="json",
    show_default=True,
    metavar="NAME[,NAME...]",
    help="Beside json, always written: icdar, labelme, page-xml, alto, hocr; for all pages: jsonl, csv, coco.",
)
@order_option
@click.option("--overlay", is_flag=True, help="Draw the instances over each page.")
@click.option(
    "--overlay-format", type=click.Choice(["jpeg", "png"]), default="jpeg", show_default=True, help="Of these pictures."
)
@click.option("--crops", is_flag=True, help="Cut out each instance, straightened.")
@click.option("--rotate-crops", is_flag=True, help="Turn crops of vertical text by 90 degrees, top to the left.")
@click.option("--save-map", is_flag=True, help="Write each probability map.")
@precision_option
@click.option(
    "--workers",
    type=click.IntRange(0),
    metavar="N",
    help="Processes, which share the model's memory [default: one a CPU]; 0: this process alone.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of each [default: CPUs by workers].")
@click.option(
    "--page-seconds",
    type=FiniteRange(0, min_open=True),
    default=_DEFAULT_SECONDS,
    show_default=True,
    metavar="S",
    help="Give up on a page after that time.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    default=_DEFAULT_BYTES,
    metavar="N",
    help="Refuse larger files [default: 4 GiB].",
)
@click.option(
    "--engine",
    "engine_name",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or of a Ray cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster; auto: that of this machine [default: none].")
@click.option(
    "--shard",
    type=_ShardType(),
    metavar="I/N",
    help="Only the Ith of N parts of the scans, counted from 1; then merge.",
)
@click.option("--force", is_flag=True, help="Do again what has results already.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed in earlier runs.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first page that fails.")
@click.option("--max-failures", type=click.IntRange(1), metavar="N", help="Stop when N pages have failed.")
@click.option("--log-json", is_flag=True, help="Tell on stderr of every page as a line of JSON.")
@verbosity_options
def batch(
    given: tuple[str, ...],
    results: str,
    shard: Shard | None,
    lists: tuple[BinaryIO, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    workers: int | None,
    threads: int | None,
    page_seconds: float,
    engine_name: str,
    address: str | None,
    force: bool,
    retry_failed: bool,
    fail_fast: bool,
    max_failures: int | None,
    log_json: bool,
    **settings: Any,
) -> None:
    """Find the text in each SOURCE and write the RESULTS into a folder that mirrors them.

    A SOURCE is a folder, a file or a quoted pattern: pictures, TIFFs of many pages, animations, PDFs. Run the same
    command again to go on after an interruption: pages whose results are there are skipped while file, model and
    settings stay the same. RESULTS/manifest.jsonl has a line for every page, RESULTS/index.html shows them.

    Sources and results may be addresses such as s3://bucket/scans. `dbcpu batch merge RESULTS` puts shards together.
    """
    from dbcpu.batch.addresses import is_address
    from dbcpu.batch.object_store import results_at
    from dbcpu.batch.run import RunOptions, run_batch
    from dbcpu.batch.shards import check_alone
    from dbcpu.batch.sources import Sources
    from dbcpu.batch.store import OWN
    from dbcpu.cli.progress import Progress
    from dbcpu.engine.threads import available_cpus
    from dbcpu.errors import OutputError, UsageError

    if not given and not lists:
        raise UsageError("nothing to read", remedy="name folders or files before the folder of the results")
    if not results:
        raise UsageError("the folder of the results has no name", remedy="the current one is .")
    sources = Sources(given=given, lists=lists, include=include, exclude=exclude, results=results, shard=shard)
    sources.check()
    if address is not None and engine_name != "ray":
        raise UsageError("--address is of a Ray cluster", remedy="give --engine ray")
    own = OWN if shard is None else shard.folder
    # The processes of Ray have working folders of their own.
    is_path = engine_name == "ray" and not is_address(results)
    store = results_at(str(Path(results).absolute()) if is_path else results, own=own)
    if engine_name == "local":
        cpus = available_cpus()
        workers = cpus if workers is None else workers
        threads = threads or max(1, cpus // max(1, workers))
    work, run_formats = _page_work(store, threads=threads or 1, **settings)
    options = RunOptions(
        force=force,
        retry_failed=retry_failed,
        most_failures=1 if fail_fast else max_failures,
        run_formats=run_formats,
        overlay=work.overlay,
    )
    progress = Progress(as_json=log_json)
    store.make()
    with store.locked(f"{own}/lock"), _until_signalled() as is_stopped:
        check_alone(store, shard)
        store.clear()
        if engine_name == "ray":
            engine = _ray_engine(work, workers, page_seconds, address)
        else:
            engine = _engine(work, workers or 0, page_seconds)
        try:
            with progress.showing(None if lists else sources.count):
                totals = run_batch(sources, store, engine, options, progress, is_stopped=is_stopped)
        except BaseException:
            engine.close(graceful=False)
            with contextlib.suppress(OutputError):  # the first error is the one to tell
                store.clear()  # of what workers have left that were ended while they wrote
            raise
        engine.close(graceful=True)
        store.clear()  # of what workers have left that died meanwhile
        if is_stopped():
            progress.tell()
            raise KeyboardInterrupt
    progress.tell_left_out(sources.left_out)
    progress.end(totals)


def _page_work(
    store: Results,
    *,
    formats: str,
    order: ReadingOrder,
    overlay: bool,
    overlay_format: PictureFormat,
    crops: bool,
    rotate_crops: bool,
    save_map: bool,
    ignore_exif: bool,
    max_pixels: int | None,
    dpi: int | None,
    password: str | None,
    max_bytes: int,
    threads: int,
    **detector: Any,
) -> tuple[PageWork, tuple[str, ...]]:
    """Return what is to be done with each page, and the formats of the whole run."""
    from dbcpu.batch.work import PageWork
    from dbcpu.errors import UsageError
    from dbcpu.writers.formats import RUN_FORMATS, page_formats

    if rotate_crops and not crops:
        raise UsageError("there are no crops to rotate", remedy="give --crops")
    names = [name.strip() for name in formats.split(",")]
    of_pages = page_formats(",".join(["json", *(name for name in names if name not in RUN_FORMATS)]))
    reading = {"ignore_exif": ignore_exif, "max_pixels": max_pixels, "dpi": dpi, "password": password}
    work = PageWork(
        store=store,
        detector=detector,
        formats=tuple(page_format.name for page_format in of_pages),
        overlay=overlay_format if overlay else None,
        crops=crops,
        rotate_crops=rotate_crops,
        probability_map=save_map,
        order=order,
        reading={name: value for name, value in reading.items() if value is not None},
        max_bytes=max_bytes,
        threads=threads,
    )
    return work, tuple(name for name in RUN_FORMATS if name in names)


def _engine(work: PageWork, workers: int, page_seconds: float) -> Engine:
    from dbcpu.batch.local import LocalEngine, SerialEngine
    from dbcpu.workers.pool import WorkerPool

    if workers == 0:
        return SerialEngine(work)
    return LocalEngine(WorkerPool(work, workers=workers), seconds_per_page=page_seconds)


def _ray_engine(work: PageWork, workers: int | None, page_seconds: float, address: str | None) -> Engine:
    from dbcpu.cluster.connection import require_ray
    from dbcpu.engine.threads import available_cpus
    from dbcpu.errors import UsageError

    if workers == 0:
        raise UsageError("Ray needs workers", remedy="leave --workers out, or take --engine local")
    require_ray()
    from dbcpu.cluster.engine import RayEngine

    work.gate = f"dbcpu-{uuid.uuid4().hex}.lock"
    cpus = available_cpus()
    return RayEngine(work, address=address, workers=workers, cpus=cpus, seconds_per_page=page_seconds)


@contextlib.contextmanager
def _until_signalled() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether the user wants the run to end; a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        logger.warning("finishing the pages in work; once more stops at once")

    before = [(number, signal.signal(number, ask)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
