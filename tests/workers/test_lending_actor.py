"""The actor whose slots are lent: its generation rests, and begins anew; no ranks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from hybridflow.parallel.layout import Layout
from hybridflow.workers.rollout import LendingActorWorker, LinkedActorWorker
from hybridflow.workers.rollout_loop import UnderWay


class Rows:
    """Stands for the rows under way."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def resting(self) -> Any:
        return nullcontext()


class Generator:
    """Stands for an engine that loses its weights in sleep, as on a GPU."""

    version: int | None = 3
    slept = False

    def sleep(self) -> None:
        self.slept = True
        self.version = None


def test_pools_that_meet_again_leave_no_generation_awake_beside_the_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinkedActorWorker, "connect", lambda *_: None)
    worker: Any = object.__new__(LendingActorWorker)
    worker.generator, worker.rollouts = Generator(), Rows()
    worker.connect("file:///nowhere", Layout(), Layout())
    assert worker.rollouts.closed and worker.generator.slept and worker.generator.version is None


def test_a_row_that_rests_and_goes_on_with_the_same_weights_has_one_run_of_them() -> None:
    row = UnderWay(prompted=2, temperature=1.0, greedy=False)
    for version, tokens in ((3, 4), (3, 6), (4, 6), (4, 9), (4, 10)):
        row.runs = row.runs_with(version, tokens)
    assert row.runs == [(3, 6), (4, 4)]
