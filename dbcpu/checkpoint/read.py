"""Any weights file to named tensors, without running anything that is in it."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch.serialization import safe_globals

from dbcpu.checkpoint.pickled import NUMPY_SCALARS, forbidden_globals, pickle_protocol
from dbcpu.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Container = Literal["safetensors", "torch zip", "torch pre-1.6 stream"]

_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
_PREFIX = re.compile(r"(?:(?:model|module|_orig_mod)\.)+")
_DEEPEST = 3  # entries within entries that are looked at for weights
_CHUNK = 1 << 20
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format

# What people hand over by mistake, by the first bytes; each with what to do instead.
_OTHER_FILES = (
    (b"\x89HDF\r\n\x1a\n", "a Keras or HDF5 file", "dbcpu reads PyTorch weights; there is no mapping from Keras"),
    (b"\xff\xd8\xff", "a JPEG picture", "give the weights with --weights and the picture as an argument"),
    (b"\x89PNG", "a PNG picture", "give the weights with --weights and the picture as an argument"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the real file with `git lfs pull`"),
    (b"<!doctype html", "a web page, most likely of a failed download", "download the weights again"),
    (b"<html", "a web page, most likely of a failed download", "download the weights again"),
    (b"<!--", "a web page, most likely of a failed download", "download the weights again"),
    (b"<?xml", "an XML document, most likely of a failed download", "download the weights again"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RawCheckpoint:
    """What a weights file holds, before any name is understood.

    Attributes:
        path: the file.
        sha256: of its bytes, in hexadecimal.
        byte_count: its size.
        container: how it is serialised.
        tensors: by name without `model.`/`module.` prefixes, in file order, on the CPU, in the stored dtype.
        prefix: what was stripped from the names, the longest one.
        extras: the entries beside the tensors (epoch, optimizer, config, ...), of any plain type.
        metadata: of a safetensors file; empty for the others.
    """

    path: Path
    sha256: str
    byte_count: int
    container: Container
    tensors: dict[str, Tensor]
    prefix: str
    extras: dict[str, Any]
    metadata: dict[str, str]


def read_checkpoint(path: Path) -> RawCheckpoint:
    """Read the tensors of a weights file.

    Pickles are read by torch's restricted unpickler, which builds tensors and plain containers and refuses the rest;
    there is no other way in.

    Args:
        path: a file that torch.save wrote, of any age, or safetensors; the name does not matter.

    Raises:
        CheckpointError: no such file, a directory, empty, cut off, something else than weights, or a pickle that asks
            for more than tensors.
    """
    head = _read_head(path)
    container = _container(path, head)
    sha256, byte_count = _digest(path)
    metadata: dict[str, str] = {}
    if container == "safetensors":
        stored, metadata = _read_safetensors(path)
        extras: dict[str, Any] = {}
    else:
        stored, extras = _state_dict(_unpickle(path), path)
    tensors, prefix = _strip_prefixes(stored, path, byte_count)
    return RawCheckpoint(
        path=path,
        sha256=sha256,
        byte_count=byte_count,
        container=container,
        tensors=tensors,
        prefix=prefix,
        extras=extras,
        metadata=metadata,
    )


def _read_head(path: Path) -> bytes:
    try:
        if path.is_dir():
            files = ", ".join(sorted(p.name for p in path.iterdir())[:5])
            holds = f"it holds {files}" if files else "it is empty"
            raise CheckpointError("a directory, not a weights file", where=path, remedy=f"name the file; {holds}")
        if path.exists() and not path.is_file():
            raise CheckpointError("a pipe or device; it is read more than once", where=path, remedy="save it as a file")
        with path.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        raise CheckpointError("no such file", where=path, remedy="check the path of the weights") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"cannot be read: {reason}", where=path) from None
    if not head:
        raise CheckpointError("an empty file", where=path, remedy="copy or download the weights again")
    return head


def _container(path: Path, head: bytes) -> Container:
    # The first eight bytes of safetensors are the length of its header, so they may look like any other beginning.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return "safetensors"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, kind, remedy in _OTHER_FILES:
        if head.startswith(magic) or text.lower().startswith(magic):
            raise CheckpointError(f"{kind}, not a checkpoint", where=path, remedy=remedy)
    if head.startswith(b"PK"):
        _check_zip(path)
        return "torch zip"
    if head[:1] == b"\x08" and (path.suffix == ".onnx" or b"\x12" in head[1:4]):  # a protobuf of ir_version, producer
        raise CheckpointError(
            "an ONNX file, not a checkpoint", where=path, remedy="convert the PyTorch weights it came from"
        )
    if head[:1] == b"\x80":
        return "torch pre-1.6 stream"  # or a bare pickle: the restricted unpickler says what is wrong with it
    if path.suffix == ".safetensors":
        raise CheckpointError("a broken safetensors file: no header", where=path, remedy=_AGAIN)
    raise CheckpointError(
        "not a checkpoint: neither torch.save nor safetensors wrote it",
        where=path,
        remedy="give the file that the training code saved",
    )


_AGAIN = "copy or download it again"


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise CheckpointError("a cut-off or damaged checkpoint (torch zip)", where=path, remedy=_AGAIN) from None
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise CheckpointError(
            "a ZIP archive, but none that torch.save wrote: data.pkl is missing",
            where=path,
            remedy="unpack it first if the checkpoint is inside",
        )
    if any("/code/" in name for name in names):
        raise CheckpointError(
            "a TorchScript program, not a checkpoint", where=path, remedy="save its state_dict() with torch.save"
        )


def _digest(path: Path) -> tuple[str, int]:
    digest, count = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(_CHUNK):
                digest.update(block)
                count += len(block)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=path) from None
    return digest.hexdigest(), count


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"a cut-off or damaged safetensors file: {_one_line(error)}", where=path, remedy=_AGAIN
        ) from None


def _unpickle(path: Path) -> object:
    try:
        with warnings.catch_warnings(), safe_globals(NUMPY_SCALARS):
            warnings.simplefilter("ignore")  # of old storages: nothing that the user could change
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if names := forbidden_globals(path):
            _refuse_known_pickles(names, path)
            raise CheckpointError(
                f"refused: it holds more than tensors and would import {', '.join(names)}",
                where=path,
                remedy="nothing in it was run; load it where it was trained and save model.state_dict() alone",
            ) from None
        if _PROTOCOL < (protocol := pickle_protocol(path)) <= pickle.HIGHEST_PROTOCOL:
            raise CheckpointError(
                f"pickled by protocol {protocol}, and torch's restricted reader knows those up to {_PROTOCOL}",
                where=path,
                remedy="load it where it was trained and save its state_dict() without pickle_protocol",
            ) from None
        raise CheckpointError(f"damaged or not a checkpoint: {_one_line(error)}", where=path, remedy=_AGAIN) from None
    except Exception as error:  # whatever damaged bytes provoke in the unpickler is a damaged file
        raise CheckpointError(
            f"a cut-off or damaged checkpoint: {_one_line(error)}", where=path, remedy=_AGAIN
        ) from None


def _refuse_known_pickles(names: list[str], path: Path) -> None:
    """Name pickles that are no checkpoints for what they are."""
    if any(name.startswith("torch.nn.modules.") for name in names):
        raise CheckpointError(
            f"a whole pickled module ({', '.join(names[:3])}, ...), not its weights",
            where=path,
            remedy="nothing in it was run; load it where it was trained and save model.state_dict()",
        )
    if path.suffix == ".pdparams" or b"StructuredToParameterName@@" in path.read_bytes():
        raise CheckpointError(
            "a PaddlePaddle file, not one of PyTorch",
            where=path,
            remedy="convert it with PaddleOCR2Pytorch first; dbcpu reads what that writes",
        )


_PROTOCOL = torch.serialization.DEFAULT_PROTOCOL
_REASON = re.compile(r"WeightsUnpickler error:\s*(.*)")  # behind torch's advice to read without restriction


def _one_line(error: BaseException) -> str:
    reason = _REASON.search(str(error))
    first = (reason[1] if reason else str(error)).strip().split("\n", 1)[0].strip().rstrip(".")
    return f"{first[:160] or 'no details'} [{type(error).__name__}]"


def _state_dict(document: object, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Find the tensors in what was saved: the mapping itself, or one entry of a training state."""
    if isinstance(document, torch.Tensor):
        raise CheckpointError("a single tensor, not a checkpoint", where=path)
    if not isinstance(document, Mapping):
        raise CheckpointError(f"it holds a {type(document).__name__}, not named tensors", where=path)
    sets = dict(_sets_of_tensors(document))
    most = max(map(len, sets.values()), default=0)
    # What is much smaller is something else: averages of a loss, a scaler, the state of an optimizer.
    large = [place for place, tensors in sets.items() if 2 * len(tensors) > most]
    found = [place for place in large if all(key in _STATE_KEYS for key in place)] or large
    if len(found) != 1:
        what, remedy = "no tensors in it", None
        if found:
            what = f"several sets of tensors: {', '.join('.'.join(place) or 'its own' for place in found)}"
            remedy = "save the one to use in a file of its own"
        entries = ", ".join(map(str, list(document)[:8])) or "nothing"
        message = f"not a checkpoint that dbcpu can read: {what}; entries: {entries}"
        raise CheckpointError(message, where=path, remedy=remedy)
    return sets[found[0]], dict(_beside(document, found[0]))


def _sets_of_tensors(
    document: Mapping[Any, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    tensors = {str(key): value for key, value in document.items() if isinstance(value, torch.Tensor)}
    if tensors and all(isinstance(key, str) for key in document):
        yield place, tensors
    if len(place) < _DEEPEST:
        for key, value in document.items():
            if isinstance(value, Mapping):
                yield from _sets_of_tensors(value, (*place, str(key)))


def _beside(document: Mapping[Any, Any], place: tuple[str, ...], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give what is no tensor of the set at `place`, by dotted keys."""
    for key, value in document.items():
        if place and str(key) == place[0]:
            yield from _beside(value, place[1:], f"{prefix}{key}.")
        elif place or not isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value


def _strip_prefixes(stored: dict[str, Tensor], path: Path, byte_count: int) -> tuple[dict[str, Tensor], str]:
    tensors: dict[str, Tensor] = {}
    longest = ""
    for name, tensor in stored.items():
        match = _PREFIX.match(name)
        prefix = match.group() if match else ""
        bare = name[len(prefix) :]
        if bare in tensors:
            raise CheckpointError(f"{bare} is in it twice, under different prefixes", where=path)
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{name} is quantised or sparse; dbcpu reads dense weights", where=path)
        if tensor.is_meta or tensor.numel() > byte_count:  # a view can repeat one number without end
            raise CheckpointError(f"{name} has a shape, but not the numbers for it", where=path)
        tensors[bare] = tensor.detach()
        longest = max(longest, prefix, key=len)
    return tensors, longest


def read_json(text: str, path: Path) -> dict[str, Any]:
    """Return the JSON object that stands in a file's metadata.

    Raises:
        CheckpointError: it is no JSON object.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its metadata is not valid JSON: {error}", where=path) from None
    if not isinstance(document, dict):
        raise CheckpointError("its metadata is not a JSON object", where=path)
    return document
