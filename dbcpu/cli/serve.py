"""`dbcpu serve`: the demonstration page and the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dbcpu.cli.options import (
    PATH,
    FiniteRange,
    checkpoint_options,
    postprocess_options,
    precision_option,
    resize_options,
    verbosity_options,
    weights_option,
)

_AMOUNT = FiniteRange(0, 1_000_000, min_open=True)  # more would overflow as milliseconds, or as a number of places


@click.command(
    short_help="Serve a page to try it and an HTTP API.",
    context_settings={"auto_envvar_prefix": "DBCPU_SERVE"},
)
@weights_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Pictures worked on at once, in a process each [default: the CPUs this process may use].",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="CPU threads for each picture [default: the CPUs, shared among the pictures in work].",
)
@click.option("--queue", type=click.IntRange(0), default=32, show_default=True, help="Pictures that may wait.")
@click.option(
    "--deadline",
    type=_AMOUNT,
    default=30,
    show_default=True,
    help="Seconds for a picture, waiting included.",
)
@click.option(
    "--read-timeout",
    type=_AMOUNT,
    default=20,
    show_default=True,
    help="Seconds for a request to arrive; large bodies may take longer, at 32 KiB a second.",
)
@click.option(
    "--max-body", type=click.IntRange(1), default=64, show_default=True, metavar="MIB", help="Largest request."
)
@click.option(
    "--max-pixels",
    type=_AMOUNT,
    default=100,
    show_default=True,
    metavar="MP",
    help="Largest page, in megapixels; refused before it is decoded.",
)
@click.option(
    "--max-network-pixels",
    type=_AMOUNT,
    default=4,
    show_default=True,
    metavar="MP",
    help="Largest input of the network, in megapixels; each takes 0.6 GB of memory.",
)
@click.option("--max-pages", type=click.IntRange(1), default=16, show_default=True, help="Pages of a file.")
@click.option("--max-files", type=click.IntRange(1), default=64, show_default=True, help="Files of a batch.")
@click.option(
    "--keep-seconds",
    type=FiniteRange(0),
    default=600,
    show_default=True,
    help="How long the page's sliders work on a picture after their last use.",
)
@click.option(
    "--keep-memory",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    metavar="MIB",
    help="Memory for the pictures whose sliders work.",
)
@click.option("--api-key-file", type=PATH, metavar="FILE", help="Keys that requests must carry, one a line.")
@click.option(
    "--cors-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Web site whose pages may use the API, such as https://example.org; repeatable [default: none].",
)
@checkpoint_options
@resize_options
@postprocess_options
@precision_option
@verbosity_options
def serve(
    weights: Path | None,
    host: str,
    port: int,
    workers: int | None,
    threads: int | None,
    queue: int,
    deadline: float,
    read_timeout: float,
    max_body: int,
    max_pixels: float,
    max_network_pixels: float,
    max_pages: int,
    max_files: int,
    keep_seconds: float,
    keep_memory: int,
    api_key_file: Path | None,
    cors_origin: tuple[str, ...],
    **loading: Any,
) -> None:
    """Serve a page to try the detector at /, an API at /v1 and its documentation at /docs.

    Every option can also be given in the environment: --max-body as DBCPU_SERVE_MAX_BODY. SIGTERM and Ctrl-C let what
    was begun come to its end.
    """
    from dbcpu.engine.threads import available_cpus
    from dbcpu.errors import UsageError
    from dbcpu.serve.settings import Limits, ServeSettings, read_keys
    from dbcpu.serve.work import ServeWork

    try:
        from dbcpu.serve.server import serve as run_server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dbcpu"):
            raise
        raise UsageError(f"needs {error.name}", where="serve", remedy="pip install 'dbcpu[serve]'") from None

    limits = Limits(
        max_body=max_body << 20,
        max_pixels=round(max_pixels * 1e6),
        max_network_pixels=round(max_network_pixels * 1e6),
        max_pages=max_pages,
        max_files=max_files,
        deadline=deadline,
        read_timeout=read_timeout,
    )
    settings = ServeSettings(
        host=host,
        port=port,
        workers=workers or available_cpus(),
        threads=threads,
        queue=queue,
        keys=() if api_key_file is None else read_keys(api_key_file),
        cors_origins=cors_origin,
        keep_seconds=keep_seconds,
        keep_bytes=keep_memory << 20,
        limits=limits,
    )
    run_server(settings, ServeWork(weights, loading, limits), _say_address)


def _say_address(address: str) -> None:
    click.echo(f"dbcpu: serving on {address}", err=True)
