"""All families of checkpoints, in the order in which they are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbcpu.checkpoint import original
from dbcpu.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from dbcpu.checkpoint.family import Family

FAMILIES: tuple[Family, ...] = (original.FAMILY,)


def family_of(names: Collection[str], path: Path) -> Family:
    """Return the family that the names belong to.

    Args:
        names: of the tensors, prefixes stripped.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: no family has such names.
    """
    for family in FAMILIES:
        if family.recognises(names):
            return family
    some = ", ".join(list(names)[:4]) or "none"
    known = "; ".join(family.title for family in FAMILIES)
    raise CheckpointError(
        f"not a DB checkpoint that dbcpu knows; its tensors are called {some}, ...",
        where=path,
        remedy=f"known: {known}",
    )
