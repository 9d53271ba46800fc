"""What an estimator is given of a rank's rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import Advantage, Algorithm, Config
from hybridflow.losses.advantages import AdvantageInputs, advantages, needing
from hybridflow.parallel.layout import Layout
from hybridflow.workers import Context
from hybridflow.workers.advantage import Estimation


@needing("style", "entropy")
def by_style(inputs: AdvantageInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.repeat_interleave(inputs.columns["style"], inputs.lengths), inputs.columns["entropy"]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    return lambda name, part: monkeypatch.setitem(advantages._parts, name, part)


def test_it_has_the_columns_that_it_declared(registered: Callable[[str, Any], None]) -> None:
    """One value a row of a dense column, one a token of a ragged one, and no other column."""
    registered("by_style", by_style)
    config = Config(algorithm=Algorithm(name="any", advantage=Advantage("by_style")))
    responses = Ragged.of([[5], [6, 7]], np.int64)
    rows = Batch(
        response_ids=responses,
        rewards=np.zeros(2, dtype=np.float32),
        style=np.array([1.0, 2.0], dtype=np.float32),
        entropy=responses.like(np.array([0.5, 0.25, 0.125], dtype=np.float32)),
        other=np.zeros(2),
    )
    found = Estimation(rows, Context(config, Layout(), 0, "actor"), lambda vector: vector).plain(0.0)
    assert found.ragged("advantages").values.tolist() == [1.0, 2.0, 2.0]
    assert found.ragged("returns").values.tolist() == [0.5, 0.25, 0.125]
