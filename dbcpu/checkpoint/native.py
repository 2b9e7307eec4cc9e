"""The model file: safetensors whose metadata carry the whole configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dbcpu import __version__
from dbcpu.checkpoint.read import read_json
from dbcpu.config import DetectorConfig, config_from_mapping, config_to_mapping
from dbcpu.errors import CheckpointError, ConfigError
from dbcpu.files import check_target, complete_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from dbcpu.checkpoint.read import RawCheckpoint

KEY = "dbcpu"  # of the metadata entry that makes a safetensors file a model file
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model file's tensors came from.

    Attributes:
        family: name of the checkpoint family.
        file_name: of the old checkpoint, without its folder.
        sha256: of the old checkpoint's bytes.
        dropped: (stored name, reason) of what was left out.
        dbcpu_version: that converted it.
    """

    family: str
    file_name: str
    sha256: str
    dropped: tuple[tuple[str, str], ...]
    dbcpu_version: str = __version__


def is_model_file(raw: RawCheckpoint) -> bool:
    """Whether `dbcpu convert` wrote this file."""
    return KEY in raw.metadata


def read_description(raw: RawCheckpoint) -> tuple[DetectorConfig, Origin]:
    """Return the configuration and the origin that a model file states.

    Raises:
        CheckpointError: the metadata are damaged, or of a later dbcpu.
    """
    document = read_json(raw.metadata[KEY], raw.path)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"a model file of schema version {version}; this dbcpu reads version {SCHEMA_VERSION}",
            where=raw.path,
            remedy="update dbcpu, or convert the old checkpoint again",
        )
    try:
        config = config_from_mapping(DetectorConfig, document.get("config"), where=raw.path, section="config")
        origin = document["origin"]
        return config, Origin(
            family=str(origin["family"]),
            file_name=str(origin["file_name"]),
            sha256=str(origin["sha256"]),
            dropped=tuple((str(name), str(reason)) for name, reason in origin["dropped"]),
            dbcpu_version=str(origin["dbcpu_version"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"its metadata are damaged: {error!r}", where=raw.path) from None
    except ConfigError as error:
        raise CheckpointError(error.what, where=error.where) from None


def write_model_file(
    path: Path, tensors: Mapping[str, Tensor], config: DetectorConfig, origin: Origin, *, replace: bool = False
) -> None:
    """Write a model file; it appears under its name only when it is complete and was read back.

    Args:
        path: of the new file.
        tensors: by the original's names, in any floating dtype, kept as it is.
        config: everything inference needs beside the tensors.
        origin: where the tensors came from.
        replace: whether an existing file may be replaced.

    Raises:
        OutputError: it exists already, its folder is missing, or writing failed; nothing is left behind then.
    """
    check_target(path, replace=replace)
    kept = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    document = describe_weights(config, origin)
    with complete_file(path) as partial:
        try:
            save_file(kept, partial, metadata={"format": "pt", KEY: document})
            _compare(partial, kept, document)
        except SafetensorError as error:  # it wraps what the system says in its own words
            raise OSError(str(error)) from None


def describe_weights(config: DetectorConfig, origin: Origin) -> str:
    """Return the JSON that stands under `KEY` in the metadata of a file; `read_description` is its inverse."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "config": config_to_mapping(config),
        "origin": {
            "family": origin.family,
            "file_name": origin.file_name,
            "sha256": origin.sha256,
            "dropped": [list(pair) for pair in origin.dropped],
            "dbcpu_version": origin.dbcpu_version,
        },
    }
    return json.dumps(document, sort_keys=True)


def _compare(path: Path, tensors: Mapping[str, Tensor], document: str) -> None:
    with safe_open(path, framework="pt") as file:
        same = (file.metadata() or {}).get(KEY) == document and set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            # Compared as bytes: NaN is unlike itself, and -0 like 0.
            same = same and torch.equal(file.get_tensor(name).view(torch.uint8), tensor.view(torch.uint8))
    if not same:
        raise OSError("what was read back differs from what was written")
