"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "data" / "golden"


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
