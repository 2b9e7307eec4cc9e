"""The whole API against its OpenAPI document; `scripts/fuzz_serve.py` does the same at length."""

from __future__ import annotations

import pytest

from scripts.fuzz_serve import main


@pytest.mark.slow
def test_schemathesis_finds_nothing():
    assert main(["--phases", "fuzzing", "--max-examples", "3", "--seed", "1"]) == 0
