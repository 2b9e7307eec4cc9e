"""All families of checkpoints, in the order in which they are tried, and networks that no table can map."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dbcpu.checkpoint import dbnet_pytorch, mmocr, modelscope, original, paddle, tao
from dbcpu.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from dbcpu.checkpoint.family import Family

FAMILIES: tuple[Family, ...] = (
    modelscope.FAMILY,  # before the original, whose names it has
    original.FAMILY,
    mmocr.FAMILY_1,
    mmocr.FAMILY_0,
    dbnet_pytorch.FAMILY,
    dbnet_pytorch.FAMILY_2020,
    paddle.FAMILY,
    tao.FAMILY,
)

# Regular expressions over names; where one matches the start of any, the network is what the text says.
_UNMAPPABLE = (
    (r"feat_extractor\.|prob_head\.", "a docTR network", "its backbone and neck differ; docTR itself runs on a CPU"),
    (
        r"backbone\.stem\.",
        "an mmocr network with an oCLIP backbone",
        "it pools before its strides; train a plain ResNet",
    ),
    (
        r"neck\.lateral_convs\.\d\.bn\.|neck\.out_conv\.",
        "an mmocr FPNC with bn_re_on_lateral, bn_re_on_smooth or conv_after_concat",
        "only the neck without them has the original's form",
    ),
    (r"neck\.smooth_convs\.\d\.bn\.", "an mmocr FPNC with bn_re_on_smooth", "only the neck without it maps"),
    (
        r"(neck|segmentation_body)\.(fpems|fpem_)",
        "a DBNet.pytorch network with the FPEM_FFM neck of PAN",
        "only its FPN neck maps",
    ),
    (r"(head|segmentation_head)\.conv\.0\.", "a DBNet.pytorch network with ConvHead", "only its DBHead maps"),
    (
        r"backbone\.(conv1_[123]|vd_conv|conv1\.0\.)",
        "a network with a ResNet-vd backbone",
        "its stem has three convolutions",
    ),
    (
        r"backbone\.stages\.\d\.\d|backbone\.(stage|layers?)_?\d",
        "a network with another backbone than ResNet",
        "DB and DB++ on ResNet map",
    ),
    (r"backbones?\.", "a text detector with a backbone or neck that dbcpu does not have", "DB and DB++ on ResNet map"),
)


def family_of(names: Collection[str], path: Path, *, stated: str | None = None) -> Family:
    """Return the family that the names belong to.

    Args:
        names: of the tensors, prefixes stripped.
        path: of the checkpoint; its name tells where the tensors' names do not.
        stated: name of the family, where the user overrules what is found.

    Raises:
        CheckpointError: no family has such names; where the network is known, it is named with the reason.
        UsageError: there is no family of the stated name.
    """
    if stated is not None:
        for family in FAMILIES:
            if family.name == stated:
                return family
        known = ", ".join(family.name for family in FAMILIES)
        raise UsageError(f"no checkpoint family is called {stated}", remedy=f"known: {known}")
    for family in FAMILIES:
        if family.recognises(names, path.name):
            return family
    for expression, what, remedy in _UNMAPPABLE:
        if any(re.match(expression, name) for name in names):
            raise CheckpointError(f"{what}, which cannot be mapped", where=path, remedy=remedy)
    some = ", ".join(list(names)[:4]) or "none"
    known = "; ".join(family.title for family in FAMILIES)
    raise CheckpointError(
        f"not a DB checkpoint that dbcpu knows; its tensors are called {some}, ...",
        where=path,
        remedy=f"known: {known}",
    )
