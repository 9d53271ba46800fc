"""What a schedule must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import Schedule, step_of
from hybridflow.batch import Batch, BatchRef
from hybridflow.errors import HybridFlowError


class Giving(Schedule):
    def __init__(self, given: Any) -> None:
        self.given = given

    def take_step(self, context: StepContext) -> BatchRef:
        rows: BatchRef = self.given
        return rows


def test_a_schedule_gives_the_rows_of_its_step() -> None:
    rows = BatchRef.from_local(Batch(n=np.arange(2)))
    assert step_of(Giving(rows), StepContext()) is rows
    with pytest.raises(HybridFlowError, match=r"Giving.take_step gave a NoneType; the rows of the step \(a BatchRef\)"):
        step_of(Giving(None), StepContext())
