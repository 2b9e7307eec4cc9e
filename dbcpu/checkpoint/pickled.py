"""Names of the globals that a pickled checkpoint asks for, found without running any of it."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_scalar = np.float64(0).__reduce__()[0]

# Metrics that training code saved beside the weights are numpy's numbers: a dtype and its bytes, which run nothing.
NUMPY_SCALARS: list[Any] = [
    (_scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
]

# A pre-1.6 stream is a magic number, a protocol version, the system's facts, the object, and the storages' keys.
_PICKLES_IN_STREAM = 5
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_PUTS = ("BINPUT", "LONG_BINPUT", "PUT")
_GETS = ("BINGET", "LONG_BINGET", "GET")


def forbidden_globals(path: Path) -> list[str]:
    """Return the dotted names that the checkpoint at `path` would import and that are not allowed, sorted.

    Of a damaged archive only what `zipfile` can read is seen: torch has a reader of its own, which looks at less.
    """
    asked: set[str] = set()
    for stream in _pickles(path):
        asked |= _globals_of(stream)
    return sorted(name for name in asked if not _is_allowed(name))


def pickle_protocol(path: Path) -> int:
    """Return the protocol that the first pickle of the checkpoint at `path` states; those before 2 state none: 0."""
    head = b""
    with contextlib.suppress(*_DAMAGES):
        head = next((stream.read(2) for stream in _pickles(path)), b"")
    return head[1] if len(head) == 2 and head[:1] == pickle.PROTO else 0


def _pickles(path: Path) -> Iterator[BinaryIO]:
    """Give a stream for each pickle of a checkpoint, to be read to its end or not."""
    if zipfile.is_zipfile(path):
        with contextlib.suppress(*_DAMAGES), zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.rpartition("/")[2] == "data.pkl":
                    with contextlib.suppress(*_DAMAGES), archive.open(member) as stream:
                        yield cast("BinaryIO", stream)
    else:
        with path.open("rb") as stream:
            for _ in range(_PICKLES_IN_STREAM):
                yield stream


def _is_allowed(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module == "torch" and (
        attribute.endswith("Storage") or isinstance(getattr(torch, attribute, None), torch.dtype)
    ):
        return True
    return name in _TENSOR_GLOBALS or name in ("numpy.dtype", *(name for _, name in NUMPY_SCALARS[:2]))


_TENSOR_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "torch.Size",
        "torch.device",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
    }
)


def _globals_of(stream: BinaryIO) -> set[str]:
    """Return the names one pickle imports; what was found before it breaks off, where it does."""
    found: set[str] = set()
    memo: dict[int, str] = {}
    strings = ["", ""]  # STACK_GLOBAL takes module and name from the stack, where they came last
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                found.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.add(".".join(strings))
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = strings[1]
            elif opcode.name in _PUTS and isinstance(argument, int):
                memo[argument] = strings[1]
            elif opcode.name in _GETS and isinstance(argument, int):
                strings = [strings[1], memo.get(argument, "")]
            elif isinstance(argument, str):
                strings = [strings[1], argument]
    except (ValueError, EOFError, UnicodeDecodeError, OSError, MemoryError, zipfile.BadZipFile, NotImplementedError):
        pass  # broken, cut, or of absurd lengths: whoever reads it for real says so
    return found
