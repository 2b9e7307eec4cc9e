"""The `dbcpu` command: its group, and how errors become messages and exit codes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys

import click

from dbcpu import __version__
from dbcpu.cli.batch import batch
from dbcpu.cli.convert import convert
from dbcpu.cli.detect import detect
from dbcpu.cli.evaluate import evaluate
from dbcpu.cli.export import export
from dbcpu.cli.inspect import inspect
from dbcpu.cli.serve import serve
from dbcpu.errors import DbcpuError, OutputError

INTERRUPTED = 130
_SIGNALLED = 128
BROKEN_PIPE = 1  # what click ends with when it is the one to notice
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dbcpu")
def cli() -> None:
    """Find text in pictures on a CPU, with Differentiable Binarization (DB, DB++) networks.

    Checkpoints of the original CUDA code work as they are.
    """


for command in (detect, batch, serve, evaluate, convert, export, inspect):
    cli.add_command(command)


def run() -> None:
    """Run the command line and end the process with its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else (signal.SIGTERM,):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _end)
    sys.exit(main(sys.argv[1:]))


def _end(number: int, _: object) -> None:
    """End the process as the signal would, but by an exception, so that nothing half-written stays behind."""
    raise SystemExit(_SIGNALLED + number)


def main(arguments: list[str]) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code.
    """
    try:
        cli.main(arguments, prog_name="dbcpu", standalone_mode=False)
        if sys.stdout is not None:  # as under `>&-`
            sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except DbcpuError as error:
        click.echo(f"dbcpu: error: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("dbcpu: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()  # whoever read the results has gone
        return BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
            _drop_stdout()
            click.echo(f"dbcpu: error: the output could not be written: {error.strerror}", err=True)
            return OutputError.exit_code
        click.echo(f"dbcpu: unexpected error, please report it: {type(error).__name__}: {error}", err=True)
        logging.getLogger("dbcpu").debug("traceback", exc_info=True)
        return 1
    return 0


def _drop_stdout() -> None:
    """Let what could not be written go, so that the interpreter does not complain about it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
