"""What a family of checkpoints is: names to recognise it by, and a table that says what becomes of each of them.

To add one, write a file with a `FAMILY` beside this one and name it in `families.py`; CONTRIBUTING has the steps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbcpu.config import PostprocessConfig, PreprocessConfig
from dbcpu.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

    from dbcpu.config import ModelConfig, OffsetStride

_NAMES_IN_A_MESSAGE = 6


@dataclass(frozen=True)
class Rename:
    """Names that start with `prefix` (a regular expression) start with `new` in the original's names.

    Attributes:
        prefix: matched at the start of a name, prefixes already stripped.
        new: replaces what matched; may refer to its groups, or compute the name from the match.
        transform: what else has to happen to the tensor, where the other code orders its channels differently.
    """

    prefix: str
    new: str | Callable[[re.Match[str]], str]
    transform: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Drop:
    """Names that match `pattern` (a regular expression, anywhere in the name) are left out, for `reason`."""

    pattern: str
    reason: str


DROP_COUNTERS = Drop(r"(^|\.)num_batches_tracked$", "counter of training steps")  # of every family's batch norms


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the networks of a family take, and how their maps are read.

    Attributes:
        preprocess: resize rule and normalisation.
        postprocess: shape, thresholds and limits.
    """

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)


def original_settings(model: ModelConfig, extras: Mapping[str, Any]) -> Settings:
    """Return the settings of the original code, which are the defaults."""
    del model, extras
    return Settings()


@dataclass(frozen=True, kw_only=True)
class Family:
    """One code base that wrote checkpoints.

    Attributes:
        name: short, for `inspect` and the model file.
        title: for people.
        explanation: what the family implies, in a sentence for people.
        signature: regular expressions; each has to match the start of some name.
        file_name: the file's own name, where names of tensors do not tell.
        rules: the first one that matches a name decides; a name that none matches is an error.
        settings: gives preprocessing and post-processing for a network, whose architecture was read from the weights,
            and for what the file holds beside them.
        offset_stride: what its deformable bottlenecks do; None is read off the weights.
    """

    name: str
    title: str
    explanation: str
    signature: tuple[str, ...]
    rules: tuple[Rename | Drop, ...]
    file_name: str | None = None
    settings: Callable[[ModelConfig, Mapping[str, Any]], Settings] = original_settings
    offset_stride: OffsetStride | None = None

    def recognises(self, names: Iterable[str], file_name: str) -> bool:
        """Whether every expression of the signature matches the start of some name, and the file is called so."""
        names = list(names)
        return self.file_name in (None, file_name) and all(
            any(re.match(expression, name) for name in names) for expression in self.signature
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RenamedTensors:
    """The tensors under the original's names, and what was left out.

    Attributes:
        tensors: by name, in file order.
        dropped: (stored name, reason) of what is not needed.
    """

    tensors: dict[str, Tensor]
    dropped: tuple[tuple[str, str], ...]


def rename_tensors(tensors: dict[str, Tensor], family: Family, path: Path) -> RenamedTensors:
    """Apply a family's table.

    Args:
        tensors: by stored name, prefixes stripped.
        family: whose table to apply.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: names that no rule knows, or two that become the same.
    """
    renamed: dict[str, Tensor] = {}
    dropped: list[tuple[str, str]] = []
    unknown: list[str] = []
    for name, tensor in tensors.items():
        rule = next((rule for rule in family.rules if _matches(rule, name)), None)
        if rule is None:
            unknown.append(name)
        elif isinstance(rule, Drop):
            dropped.append((name, rule.reason))
        else:
            new = re.sub(rule.prefix, rule.new, name, count=1)
            if new in renamed:
                raise CheckpointError(f"two tensors would both be {new}", where=path)
            renamed[new] = tensor if rule.transform is None else rule.transform(tensor)
    if unknown:
        raise CheckpointError(
            f"{count_names(unknown)} that {family.title} does not have", where=path, remedy=_REMEDY_UNKNOWN
        )
    return RenamedTensors(tensors=renamed, dropped=tuple(dropped))


_REMEDY_UNKNOWN = "the network was changed; dbcpu would have to guess what they do"


def _matches(rule: Rename | Drop, name: str) -> bool:
    if isinstance(rule, Drop):
        return re.search(rule.pattern, name) is not None
    return re.match(rule.prefix, name) is not None


def count_names(names: list[str]) -> str:
    """Return `3 tensors (a, b, c)`, cut where there are many."""
    shown = ", ".join(names[:_NAMES_IN_A_MESSAGE])
    more = f" and {len(names) - _NAMES_IN_A_MESSAGE} more" if len(names) > _NAMES_IN_A_MESSAGE else ""
    return f"{len(names)} tensor{'' if len(names) == 1 else 's'} ({shown}{more})"
