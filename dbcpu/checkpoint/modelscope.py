"""ModelScope's DB: the names of the original code without its prefix, plain ResNet, and means of its own.

Names alone do not tell it from an original checkpoint whose prefix was stripped; its file name does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dbcpu.checkpoint import original
from dbcpu.checkpoint.family import Settings
from dbcpu.config import PreprocessConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbcpu.config import ModelConfig


def _settings(model: ModelConfig, extras: Mapping[str, Any]) -> Settings:
    del model, extras
    return Settings(preprocess=PreprocessConfig(mean=(123.68, 116.78, 103.94)))


FAMILY = replace(
    original.FAMILY,
    name="modelscope",
    title="ModelScope DB",
    explanation="the original's names and plain ResNet, with means of its own",
    file_name="pytorch_model.pt",
    settings=_settings,
)
