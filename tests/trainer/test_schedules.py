"""The order of a step, by its calls; no ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from hybridflow.algorithms import Algorithm, StepContext
from hybridflow.algorithms.schedule import Schedule, schedules
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.preflight import load
from hybridflow.trainer import disaggregated
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.prompt_draws import PromptDraws
from tests.trainer import bound_zero


class Recorder:
    """Stands for the actor, the supervisor and the prompts, and writes down in which order they are called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin_step(self, step: int) -> None:
        self.calls.append(f"begin {step}")

    def enter_step(self, step: int) -> None:
        self.calls.append(f"enter {step}")

    def wait_step(self, step: int | None) -> None:
        self.calls.append(f"wait {step}")

    def finish_step(self) -> dict[str, float]:
        self.calls.append("finish")
        return {"seconds": 1.0}

    def next_prompts(self) -> BatchRef:
        self.calls.append("prompts")
        return BatchRef.from_local(Batch(n=np.arange(3)))

    def sync_weights(self) -> None:
        self.calls.append("sync")

    @contextmanager
    def weights_as_synced(self) -> Iterator[None]:
        self.calls.append("[")
        try:
            yield
        finally:
            self.calls.append("]")


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


def taken(cls: type[Any], name: str = "sync", steps: int = 1, first: int = 0) -> list[str]:
    """What steps of an algorithm call, in order."""
    recorder = Recorder()
    algorithm = cls(load("train", ["experiment=addition"]).algorithm, {"actor": recorder})
    algorithm.calls = recorder.calls
    schedule = schedules.get(name)(algorithm, recorder)
    progress = Progress(steps=first)
    draws = PromptDraws(lambda _: recorder.next_prompts(), progress, first + steps)
    for number in range(first, first + steps):
        assert len(schedule.take_step(draws.context(number))) == 3
        assert algorithm.step_index == number
        assert schedule.finish_step() == {"seconds": 1.0}
        draws.end_step(number)
    assert progress.draws == recorder.calls.count("prompts")
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


def test_one_step_off_generates_for_the_next_step_before_this_one_is_waited_for() -> None:
    calls = taken(InTwo, "one_step_off", steps=3, first=5)
    calls = [call for call in calls if not call.startswith("enter")]
    first = ["begin 5", "sync", "prompts", "[", "rollout 5", "]", "wait 5", "learn 5"]
    # Rollout 6 is called for between the syncs before step 5 and before step 6: it has the weights of the former.
    second = ["begin 6", "prompts", "[", "rollout 6", "]", "finish", "wait 6", "sync", "learn 6"]
    third = ["begin 7", "prompts", "[", "rollout 7", "]", "finish", "wait 7", "sync", "learn 7", "finish"]
    assert calls == [*first, *second, *third]


class Sampling(InTwo):
    """Gives responses, as flows do."""

    def rollout(self, prompts: BatchRef) -> BatchRef:
        rows = super().rollout(prompts)
        return rows | BatchRef.from_local(Batch(response_ids=Ragged.of([[1], [2, 3], [4]], np.int64)))


def test_one_step_off_waits_for_what_is_sampled_and_not_for_what_scores_it() -> None:
    calls = taken(Sampling, "one_step_off", steps=2)
    assert not [call for call in calls if call.startswith("wait")]
    assert calls.index("learn 0") < calls.index("rollout 1") < calls.index("learn 1")


class Side:
    """Stands for the group of one side of a refit."""

    layout = Layout()

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda *_, **__: self._calls.append(name) or name  # type: ignore[func-returns-value]


def test_calls_that_sample_sync_weights_unless_a_schedule_has(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(disaggregated, "put", lambda rows: rows)
    actor = disaggregated.DisaggregatedActor(Side(calls), Side(calls))
    rows = BatchRef.from_local(Batch(n=np.arange(3)))
    with actor.weights_as_synced():
        actor.generate_sequences(rows)
        actor.stream_sequences(rows)
    assert calls == ["generate_sequences", "stream_sequences"]
    actor.generate_sequences(rows)
    assert calls[2:] == ["report_version", "report_version", "send_weights", "receive_weights", "generate_sequences"]


class Numbering(Side):
    """One with two replicas, which gives the rows that it was called with."""

    layout = Layout(data=2)

    def number_streams(self, rows: BatchRef) -> BatchRef:
        return rows

    def generate_sequences(self, rows: BatchRef) -> BatchRef:
        self._calls.append(f"sample {len(rows)}")
        return rows


def test_a_call_that_samples_is_spread_over_the_replicas_of_both_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(disaggregated, "put", lambda rows: rows)
    actor = disaggregated.DisaggregatedActor(Numbering(calls), Numbering(calls), lends=True)
    rows = BatchRef.from_local(Batch(n=np.arange(7)))
    assert actor.generate_sequences(rows).get().dense("n").tolist() == [*range(7)]
    assert calls[-2:] == ["sample 4", "sample 3"]
    actor.generate_sequences(rows.slice(0, 1))
    assert calls[-2:] == ["receive_weights", "sample 1"], "no call without rows"


class Met(Side):
    """One whose calls can be waited for."""

    def connect(self, *_: object) -> Met:
        return self

    def get(self) -> None:
        return None


def test_pools_that_meet_again_have_nothing_under_way_of_the_schedule_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure, validation may generate before the first step: what the old schedule waits for never comes."""

    class Lost:
        def sampled(self, *_: object) -> None:
            raise AssertionError("it waits for calls that nobody will report on")

        rest = sampled

    calls: list[str] = []
    monkeypatch.setattr(disaggregated, "put", lambda rows: rows)
    actor = disaggregated.DisaggregatedActor(Met(calls), Met(calls))
    actor.row_source = Lost()
    actor.connect("a meeting")
    actor.generate_sequences(BatchRef.from_local(Batch(n=np.arange(3))))
    assert calls[-1] == "generate_sequences"


def test_with_a_staleness_of_zero_the_order_is_that_of_sync() -> None:
    own = [call for call in taken(InTwo, bound_zero.NAME, steps=2) if not call.startswith(("wait", "enter", "[", "]"))]
    first = ["begin 0", "sync", "prompts", "rollout 0", "learn 0", "finish"]
    assert own == [*first, *(call.replace("0", "1") for call in first)]


def test_rows_of_older_weights_than_one_step_off_allows_are_refused() -> None:
    class Lagging(Recorder):
        def finish_step(self) -> dict[str, float]:
            return {"rollout/version_lag_max": 8.0}

    recorder = Lagging()
    config = load("train", ["experiment=addition", "algorithm.minibatches=4"]).algorithm
    algorithm = InTwo(config, {"actor": recorder})
    algorithm.calls = recorder.calls
    schedule = schedules.get("one_step_off")(algorithm, recorder)
    schedule.take_step(StepContext(0, recorder.next_prompts))
    with pytest.raises(
        HybridFlowError, match=r"8 optimizer steps older .*with 4 a step, a staleness of 1 allows fewer than 8"
    ):
        schedule.finish_step()


@pytest.mark.parametrize(("lag", "refused"), [(8.0, False), (15.0, False), (16.0, True)])
def test_a_flow_may_take_more_optimizer_steps_than_it_plans(lag: float, refused: bool) -> None:
    class Counting(Recorder):
        def finish_step(self) -> dict[str, float]:
            return {"rollout/version_lag_max": lag, "actor/updates": 8.0}

    recorder = Counting()
    config = load("train", ["experiment=addition", "algorithm.minibatches=4"]).algorithm
    algorithm = InTwo(config, {"actor": recorder})
    algorithm.calls = recorder.calls
    schedule = schedules.get("one_step_off")(algorithm, recorder)
    schedule.take_step(StepContext(0, recorder.next_prompts))
    if not refused:
        schedule.finish_step()
        return
    with pytest.raises(HybridFlowError, match=r"with 8 a step, a staleness of 1 allows fewer than 16"):
        schedule.finish_step()


def test_a_step_that_was_begun_ahead_and_lost_is_given_the_same_prompts() -> None:
    progress = Progress()

    def numbered(number: int) -> Any:
        return number

    draws = PromptDraws(numbered, progress, steps=3)
    ahead = draws.context(0).following()
    assert draws.context(0).next_prompts() == 0
    following = draws.context(0).following()
    assert following is ahead and following is draws.context(1)
    assert following.next_prompts() == 1 and following.next_prompts() == 2
    with pytest.raises(HybridFlowError, match="step 0 draws prompts in `learn`, but step 1 has drawn its own"):
        draws.context(0).next_prompts()
    draws.end_step(0)
    assert progress.draws == 1
    assert PromptDraws(numbered, progress, steps=3).context(1).next_prompts() == 1
    assert draws.context(2).following() is None and draws.context(2).steps_left == 0


def test_the_prompts_of_the_next_step_are_ready_before_it_asks_for_them() -> None:
    """As often as it does, and the same ones; of what a step that was begun ahead has drawn nothing is drawn again."""
    drawn: list[int] = []
    progress = Progress()

    def numbered(number: int) -> Any:
        drawn.append(number)
        return number

    draws = PromptDraws(numbered, progress, steps=3)
    for step, own in ((0, [0, 1]), (1, [2])):
        assert [draws.context(step).next_prompts() for _ in own] == own
        assert drawn == list(range(own[-1] + 1))
        draws.prepare(step)
        assert drawn == list(range(own[-1] + 2)), "the first of the next step"
        draws.end_step(step)
        assert progress.draws == own[-1] + 1, "what nobody has asked for is not past"
    assert draws.context(2).next_prompts() == 3 and drawn == [0, 1, 2, 3]
    draws.prepare(2)
    assert drawn == [0, 1, 2, 3], "there is no step after it"

    ahead = PromptDraws(numbered, Progress(), steps=3)
    assert ahead.context(0).next_prompts() == 0 and ahead.context(1).next_prompts() == 1
    ahead.prepare(0)
    assert drawn == [0, 1, 2, 3, 0, 1], "the next step has begun"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["algorithm=grpo"], "generates while the actor learns, so generation needs a pool of its own: placement="),
        (["algorithm=grpo", "placement=rollout_pool"], None),
    ],
)
def test_one_step_off_needs_generation_on_a_pool_of_its_own(settings: list[str], told: str | None) -> None:
    overrides = ["experiment=addition", "trainer.schedule=one_step_off", *settings]
    if told is None:
        assert load("train", overrides).trainer.schedule == "one_step_off"
        return
    with pytest.raises(ConfigError, match=rf"trainer\.schedule: one_step_off {told}"):
        load("train", overrides)


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
