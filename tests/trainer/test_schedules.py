"""The order of a step, by its calls; no ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hybridflow.algorithms import Algorithm, StepContext
from hybridflow.algorithms.schedule import Schedule, schedules
from hybridflow.batch import Batch, BatchRef
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.preflight import load


class Recorder:
    """Stands for the actor, the supervisor and the prompts, and writes down in which order they are called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin_step(self, step: int) -> None:
        self.calls.append(f"begin {step}")

    def finish_step(self) -> dict[str, float]:
        self.calls.append("finish")
        return {"seconds": 1.0}

    def next_prompts(self) -> BatchRef:
        self.calls.append("prompts")
        return BatchRef.from_local(Batch(n=np.arange(3)))

    def sync_weights(self) -> None:
        self.calls.append("sync")


class InTwo(Algorithm):
    """Written as a rollout and what is learned from it."""

    roles = ("actor",)
    calls: list[str]

    def rollout(self, prompts: BatchRef) -> BatchRef:
        self.calls.append(f"rollout {self.step_index}")
        return prompts

    def learn(self, rollout: BatchRef) -> BatchRef:
        self.calls.append(f"learn {self.step_index}")
        return rollout


class InOne(Algorithm):
    """Written as one method, as any flow may be."""

    roles = ("actor",)
    calls: list[str]

    def step(self, prompts: BatchRef) -> BatchRef:
        self.calls.append(f"step {self.step_index}")
        return prompts


class OfExamples(InTwo):
    """Learns from responses that it is given."""

    supervised = True


class OfStoredRows(InTwo):
    """Learns from responses that it finds itself, as an offline flow does."""

    generates = False


class OfBoth(OfExamples):
    """Samples beside the examples that it is given."""

    generates = True


class WithoutRows(InTwo):
    """Forgets to return its rows."""

    def learn(self, rollout: BatchRef) -> Any:
        return None


def taken(cls: type[Any], name: str = "sync", steps: int = 1) -> list[str]:
    """What steps of an algorithm call, in order."""
    recorder = Recorder()
    algorithm = cls(load("train", ["experiment=addition"]).algorithm, {"actor": recorder})
    algorithm.calls = recorder.calls
    schedule = schedules.get(name)(algorithm, recorder)
    for number in range(steps):
        assert len(schedule.take_step(StepContext(number, recorder.next_prompts))) == 3
        assert schedule.finish_step() == {"seconds": 1.0}
    return recorder.calls


def test_weights_are_synced_between_the_prompts_and_the_rollout_and_nothing_overlaps() -> None:
    first = ["begin 0", "prompts", "sync", "rollout 0", "learn 0", "finish"]
    assert taken(InTwo, steps=2) == [*first, *(call.replace("0", "1") for call in first)]


def test_a_flow_of_one_method_is_taken_as_it_is() -> None:
    assert taken(InOne) == ["begin 0", "prompts", "sync", "step 0", "finish"]


def test_a_step_of_a_users_stands_above_the_two_halves_that_it_inherits() -> None:
    class Both(InTwo):
        def step(self, prompts: BatchRef) -> BatchRef:
            self.calls.append("own")
            return self.learn(prompts)

    assert taken(Both) == ["begin 0", "prompts", "sync", "own", "learn 0", "finish"]


def test_no_weights_travel_where_nothing_is_sampled() -> None:
    assert "sync" not in taken(OfExamples)
    assert "sync" not in taken(OfStoredRows)


def test_an_algorithm_says_itself_that_it_samples() -> None:
    assert "sync" in taken(OfBoth)


def test_a_step_without_rows_is_told() -> None:
    with pytest.raises(HybridFlowError, match=r"WithoutRows.* gave a NoneType"):
        taken(WithoutRows)


def test_prompts_are_there_in_a_step_only() -> None:
    algorithm = InTwo(load("train", ["experiment=addition"]).algorithm, {"actor": None})
    with pytest.raises(HybridFlowError, match="next_prompts was asked for outside of a step"):
        algorithm.next_prompts()


def test_a_schedule_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.schedule: no schedule is named 'sinc'; did you mean 'sync'\?"):
        load("train", ["experiment=addition", "trainer.schedule=sinc"])


def test_a_schedule_of_a_users_is_chosen_by_its_name() -> None:
    @schedules.register("learns_first")
    class LearnsFirst(Schedule):
        """Learns from what it is given before it samples."""

        def take_step(self, context: StepContext) -> BatchRef:
            self.steps.begin_step(context.step_index)
            self.algorithm.begin_step(context)
            rows = self.algorithm.learn(context.next_prompts())
            self.sync_weights()
            return self.algorithm.rollout(rows)

    assert load("train", ["experiment=addition", "trainer.schedule=learns_first"]).trainer.schedule == "learns_first"
    assert taken(InTwo, "learns_first") == ["begin 0", "prompts", "learn 0", "sync", "rollout 0", "finish"]
