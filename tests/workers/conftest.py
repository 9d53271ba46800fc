"""Models that several modules update."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import GetModel


@pytest.fixture(scope="module")
def models(tiny: GetModel) -> tuple[Path, Path]:
    """The policy and the reference."""
    shape = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 2, "vocab": 70}
    return tiny(**shape, seed=0), tiny(**shape, seed=1)
