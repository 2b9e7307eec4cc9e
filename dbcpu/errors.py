"""Everything that a user can cause, each with the exit code the command line ends with."""

from __future__ import annotations

from typing import ClassVar


def printable(text: str) -> str:
    """Return `text` with every character that would break a line or steer a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class DbcpuError(Exception):
    """Base of all errors that dbcpu raises on purpose.

    Args:
        what: what is wrong, a clause without a full stop.
        where: the file, key or option it is wrong in.
        remedy: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would otherwise be lost between processes.
        return _rebuild, (type(self), self.what, self.where, self.remedy)

    def __str__(self) -> str:
        """Return one line: `where: what (remedy)`."""
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.remedy is not None:
            text += f" ({self.remedy})"
        return printable(text)  # a name in it may have a line break


def _rebuild(kind: type[DbcpuError], what: str, where: str | None, remedy: str | None) -> DbcpuError:
    return kind(what, where=where, remedy=remedy)


class UsageError(DbcpuError):
    """Options or arguments that do not go together."""

    exit_code = 2


class ConfigError(DbcpuError):
    """A configuration that is malformed or contradicts the weights."""

    exit_code = 3


class CheckpointError(DbcpuError):
    """A weights file that cannot be read, trusted or mapped."""

    exit_code = 4


class ImageError(DbcpuError):
    """A picture that cannot be read."""

    exit_code = 5


class NoSuchPageError(ImageError):
    """A page that is asked for and that the file does not have."""


class TruthError(DbcpuError):
    """Ground truth, or detections to compare with it, that cannot be read."""

    exit_code = 5


class OutputError(DbcpuError):
    """A result that cannot be written."""

    exit_code = 6


class SomeImagesFailedError(DbcpuError):
    """Some pictures of several failed; the others have their results."""

    exit_code = 7


class WorkerError(DbcpuError):
    """Worker processes that cannot be kept alive, though no picture is to blame."""
