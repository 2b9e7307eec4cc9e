"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import GOLDEN
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


# A deadline would measure what else the machine is doing.
settings.register_profile("dbcpu", deadline=None)
settings.load_profile("dbcpu")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Unchanged copies of the numbers that the original code computed."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository with real pictures and trained weights; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared, the folder of real pictures and golden files beside the repository")
    return folder


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that makes the weights and pictures which the golden maps were computed from."""
    spec = importlib.util.spec_from_file_location("synthetic", GOLDEN / "synthetic.py")
    if spec is None or spec.loader is None:
        raise ImportError("tests/data/golden/synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_checkpoint(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a checkpoint file as old code bases did, once per session: `make_checkpoint(variant, layout="legacy")`."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(variant: str = "deformable_resnet18", layout: str = "original") -> Path:
        path: Path = folder / f"{variant}_{layout}"
        if not path.exists():
            synthetic.save_checkpoint(variant, path, layout=layout)
        return path

    return make


@pytest.fixture(scope="session")
def ray_of_two() -> Iterator[None]:
    """Be connected to a Ray of this machine with two CPUs; tests that need it skip where Ray is not installed."""
    pytest.importorskip("ray.data", reason="needs ray[data]")
    from dbcpu.cluster.connection import connected

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # for the works of tests
        with connected(None, cpus=2):
            yield


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the package logs from warnings upwards, whatever the command line has set up before."""
    monkeypatch.setattr(logging.getLogger("dbcpu"), "propagate", True)
    caplog.set_level(logging.WARNING, "dbcpu")
    return caplog


@pytest.fixture
def page(tmp_path: Path, synthetic: ModuleType) -> Path:
    """A small picture in a file."""
    import cv2

    path = tmp_path / "page.png"
    cv2.imwrite(str(path), synthetic.image(4))
    return path
