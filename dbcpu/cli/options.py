"""Options that several commands share, and what stands behind them."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbcpu.geometry import Size
    from dbcpu.tiling import Tile

    _SizeParameter = click.ParamType[Size]
    _TileParameter = click.ParamType[Tile]
else:
    _SizeParameter = _TileParameter = click.ParamType  # no generic class before click 8.2

F = TypeVar("F", bound="Callable[..., Any]")
PATH = click.Path(path_type=Path)
_DIGITS = 10  # of a side in pixels; Python refuses to read numbers of thousands


class SizeType(_SizeParameter):
    """`WxH` in pixels, as in 1280x736."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return the size, or fail as click does."""
        from dbcpu.geometry import Size

        if isinstance(value, Size):
            return value
        width, _, height = str(value).lower().partition("x")
        digits = max(len(width), len(height)) < _DIGITS and width.isdecimal() and height.isdecimal()
        if not (digits and int(width) and int(height)):
            self.fail(f"{value!r} is not a width and a height, such as 1280x736", param, ctx)
        return Size(int(height), int(width))


class TileType(_TileParameter):
    """`auto`, `off` or a number, whose range is checked where the detector is made."""

    name = "auto|N|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tile:
        """Return the choice, or fail as click does."""
        if value in ("auto", "off"):
            return value  # type: ignore[no-any-return]
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not auto, off or a number from 1 to 10000", param, ctx)


class FiniteRange(click.FloatRange):
    """As in click, without infinity and nan, which no comparison refuses."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


weights_option = click.option(
    "--weights", type=PATH, metavar="FILE", help="Old checkpoint or model file [default: the model dbcpu carries]."
)

order_option = click.option(
    "--order",
    type=click.Choice(["none", "ltr", "rtl-vertical"]),
    default="none",
    show_default=True,
    help="Reading order: columns and lines from the left, or vertical lines from the right; none: as they are found.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "auto"]),
    default="fp32",
    show_default=True,
    help="Of the network; auto is bf16 only where it is known to be faster: AMX, AMD since Zen 4.",
)

checkpoint_options = _together(
    click.option("--config", type=PATH, metavar="YAML", help="Configuration, such as those in configs/."),
    click.option(
        "--offset-stride",
        type=click.Choice(["auto", "original", "strided"]),
        default="auto",
        show_default=True,
        help="Meaning of the stride-2 blocks of deformable ResNet-50 and deeper; auto reads it off the weights.",
    ),
    click.option(
        "--family", metavar="NAME", help="Code base that wrote the checkpoint, instead of the recognised one."
    ),
    click.option(
        "--asf/--no-asf",
        "attention",
        default=True,
        help="Leave out the adaptive scale fusion of DB++, as EasyOCR does with the same files.",
    ),
)

source_options = _together(
    click.option("--ignore-exif", is_flag=True, help="Take the pixels as stored, without turning the picture upright."),
    click.option(
        "--max-pixels", type=click.IntRange(1), metavar="N", help="Refuse larger pages [default: 500 million pixels]."
    ),
    click.option(
        "--dpi",
        type=click.IntRange(1, 10_000),
        metavar="N",
        help="Draw pages of PDFs at N pixels per inch [default: 200].",
    ),
    click.option(
        "--password",
        envvar="DBCPU_PASSWORD",
        metavar="TEXT",
        help="Opens encrypted PDFs; other users see it in the list of processes, but not in DBCPU_PASSWORD.",
    ),
)

resize_options = _together(
    click.option("--short-side", type=click.IntRange(1), metavar="N", help="Resize the short side to N pixels."),
    click.option("--height", type=click.IntRange(1), metavar="N", help="Resize the height to N pixels."),
    click.option("--size", type=SizeType(), help="Resize to exactly this size, whatever the ratio."),
)


def tile_option(default: Tile) -> Callable[[F], F]:
    """Return the option, whose default is a matter of the command."""
    return click.option(
        "--tile",
        type=TileType(),
        default=default,
        show_default=True,
        help="Read pages N times larger, in overlapping tiles; auto: large pages whose letters would become too low.",
    )


postprocess_options = _together(
    click.option("--shape", type=click.Choice(["quad", "polygon"]), help="Four corners, or outlines of any form."),
    click.option(
        "--binarize-threshold",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="Probability above which a pixel is text.",
    ),
    click.option(
        "--score-threshold", type=click.FloatRange(0, 1), metavar="P", help="Mean probability an instance must reach."
    ),
    click.option(
        "--unclip-ratio",
        type=click.FloatRange(0, min_open=True),
        metavar="R",
        help="How far shrunk kernels are pushed outwards [default: the weights', else 1.5, polygons 2].",
    ),
    click.option("--max-candidates", type=click.IntRange(1), metavar="N", help="Contours looked at in one page."),
    click.option(
        "--min-side", type=click.FloatRange(0), metavar="N", help="Shortest side of a kernel, network pixels."
    ),
    click.option(
        "--polygon-epsilon",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="E",
        help="Simplification of polygons, share of the perimeter.",
    ),
)


speed_options = _together(
    precision_option,
    click.option(
        "--compile",
        is_flag=True,
        help="Compile the network first: for long runs, and needs a C++ compiler.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        metavar="N",
        help="CPU threads to use [default: those this process may use].",
    ),
)


class _StderrHandler(logging.Handler):
    """Messages to whatever stderr is at that moment, so that a progress bar can step aside."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        sys.stderr.write(f"dbcpu: {level}{self.format(record)}\n")  # not by click, which would write across the bar


def _set_verbosity(context: click.Context, parameter: click.Parameter, value: int | bool) -> None:
    del context
    if parameter.name == "quiet" and value:
        level = logging.ERROR
    elif parameter.name == "verbose":
        level = {0: logging.WARNING, 1: logging.INFO}.get(int(value), logging.DEBUG)
    else:
        return
    root = logging.getLogger("dbcpu")
    root.handlers = [_StderrHandler()]
    root.propagate = False
    root.setLevel(level)


verbosity_options = _together(
    click.option(
        "-v",
        "--verbose",
        count=True,
        callback=_set_verbosity,
        expose_value=False,
        is_eager=True,
        help="Say what is done and how long it takes; twice for tracebacks.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        callback=_set_verbosity,
        expose_value=False,
        help="Say nothing on stderr but errors.",
    ),
)
