"""The schedule that learns from each minibatch as soon as its rows have finished; no ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import schedules
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.joining import concat
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.preflight import load
from hybridflow.scheduling import policy_of
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.prompt_draws import PromptDraws
from hybridflow.trainer.schedules.stream_schedule import StreamSchedule
from hybridflow.workers.actor import as_sampled
from tests.trainer.test_paced_schedule import PROMPTS, SAMPLES, Generation, Learner, drawn, learner, taken

STEPS = 5


def stream(minibatches: int) -> Any:
    return policy_of("stream", PROMPTS, samples_per_prompt=SAMPLES, minibatches=minibatches)


class Cutting(Learner):
    """Learns from minibatches as an algorithm does; keeps the prompts of each, and how many rows were under way."""

    updates: list[list[int]]
    under_way: list[int]

    def learn(self, rollout: BatchRef) -> BatchRef:
        rows = super().learn(rollout)
        assert self.config.prompts_per_step * SAMPLES == len(rows)
        for part in self.minibatches(rollout):
            self.updates.append(part.get().dense("prompt").tolist())
            self.under_way.append(len(self.actor._under_way))  # type: ignore[attr-defined]
        return rows


class AtOnce(Generation):
    """Finishes all rows of a step in one call."""

    def report(self) -> None:
        call = next(call for call in self._calls if call.missing)
        call.rows = [(number, *self._under_way.pop(number)) for number in [*self._under_way]]
        call.missing = 0
        self.work()


def cutting(generation: Generation, minibatches: int, cls: type[Cutting] = Cutting) -> Any:
    algorithm = learner(generation, stream(minibatches), cls)
    algorithm.updates, algorithm.under_way = [], []
    algorithm.config.minibatches = minibatches
    return algorithm


@settings(max_examples=15)
@given(minibatches=st.integers(1, PROMPTS), seed=st.integers(0, 999), killed=st.lists(st.integers(1, 4), max_size=2))
def test_a_step_s_rows_are_sync_s_each_learned_from_once_in_full_minibatches_of_whole_prompts(
    minibatches: int, seed: int, killed: list[int]
) -> None:
    progress = Progress()
    updates: list[list[int]] = []
    for number, until in enumerate([*sorted(killed), STEPS]):
        generation = Generation(seed + number)
        generation.trained = progress.steps
        algorithm = cutting(generation, minibatches)  # it asserts that all rows have the step's first weights
        taken(algorithm, generation, stream(minibatches), progress, STEPS, until, StreamSchedule)
        assert generation.most <= PROMPTS * SAMPLES
        assert algorithm.config.minibatches == minibatches and algorithm.config.prompts_per_step == PROMPTS
        updates += algorithm.updates
    assert len(updates) == STEPS * minibatches, "as many updates as sync takes, and as were planned"
    sizes = [stream(minibatches).part_size(part, PROMPTS) * SAMPLES for part in range(minibatches)]
    assert [len(rows) for rows in updates] == sizes * STEPS
    for step in range(STEPS):
        rows = [prompt for part in updates[step * minibatches : (step + 1) * minibatches] for prompt in part]
        prompts = range(step * PROMPTS, (step + 1) * PROMPTS)
        assert sorted(rows) == sorted([*prompts] * SAMPLES)


def test_rows_that_finish_at_once_are_learned_from_in_the_order_of_the_prompts() -> None:
    generation = AtOnce(0)
    algorithm = cutting(generation, PROMPTS)
    taken(algorithm, generation, stream(PROMPTS), Progress(), STEPS, STEPS, StreamSchedule)
    places = np.concatenate([drawn(step).get().dense("prompt") for step in range(STEPS)])
    assert algorithm.updates == [[prompt] * SAMPLES for prompt in places.tolist()]


def test_minibatches_are_learned_from_while_later_ones_are_generated() -> None:
    under_way = []
    for seed in range(5):
        generation = Generation(seed)
        algorithm = cutting(generation, PROMPTS)
        taken(algorithm, generation, stream(PROMPTS), Progress(), STEPS, STEPS, StreamSchedule)
        under_way += algorithm.under_way
    assert max(under_way) > 0
    assert not any(under_way[PROMPTS - 1 :: PROMPTS]), "a step's last has nothing left to wait for"


def test_rows_kept_of_a_step_are_those_of_all_its_parts() -> None:
    generation = Generation(1)
    schedule = StreamSchedule(cutting(generation, PROMPTS), generation, stream(PROMPTS))
    context = PromptDraws(drawn, Progress(), STEPS).context(0)
    rows = schedule.take_step(context)
    assert context.kept == len(rows) == PROMPTS * SAMPLES
    groups = rows.get().dense("group_id")
    assert len({*zip(groups.tolist(), rows.get().dense("prompt").tolist(), strict=True)}) == PROMPTS


class Scoring(Cutting):
    """Has its first part's rows scored by their update, and those of the others before."""

    def learn(self, rollout: BatchRef) -> BatchRef:
        rows = super().learn(rollout)
        scored = rows | BatchRef.from_local(Batch(old_log_probs=np.arange(float(len(rows)))))
        if self.context.in_parts:
            return scored
        self.context.scored = [scored]
        return rows


def test_parts_are_joined_also_where_the_first_alone_is_not_scored_before() -> None:
    generation = Generation(1)
    schedule = StreamSchedule(cutting(generation, PROMPTS, Scoring), generation, stream(PROMPTS))
    context = PromptDraws(drawn, Progress(), STEPS).context(0)
    rows = schedule.take_step(context)
    assert len(rows) == PROMPTS * SAMPLES and "old_log_probs" not in rows.columns
    prompts = concat(context.scored).get().dense("prompt")
    assert np.array_equal(prompts, rows.get().dense("prompt")), "each part's are known"


class Drawing(Cutting):
    """Asks for further prompts."""

    def rollout(self, prompts: BatchRef) -> BatchRef:
        self.next_prompts()
        return super().rollout(prompts)


def test_a_flow_that_draws_further_prompts_is_told() -> None:
    generation = Generation(1)
    schedule = StreamSchedule(cutting(generation, PROMPTS, Drawing), generation, stream(PROMPTS))
    context: StepContext = PromptDraws(drawn, Progress(), STEPS).context(0)
    with pytest.raises(HybridFlowError, match="draws further prompts"):
        schedule.take_step(context)


def test_rows_that_older_weights_sampled_are_compared_with_the_policy_that_sampled_them() -> None:
    scored = Ragged.of([[1.0, 2.0], [3.0], []], np.float32)
    sampled = Ragged.of([[4.0, 5.0], [6.0], []], np.float32)
    assert as_sampled(scored, sampled, np.array([True, False, True])) == Ragged.of([[4.0, 5.0], [3.0], []], np.float32)


POOL = ("experiment=addition", "placement=rollout_pool", "trainer.schedule=stream", "algorithm.minibatches=2")


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "rloo", "remax"])
def test_algorithms_of_groups_are_learned_from_in_parts(algorithm: str) -> None:
    assert load("train", [*POOL, f"algorithm={algorithm}"]).trainer.schedule == "stream"
    assert schedules.get("stream").in_parts


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("algorithm=ppo",), r"algorithm.name: ppo has other models that learn \(actor, critic\), which trainer.sche"),
        (("algorithm=dapo",), r"draws further prompts within a step"),
        (("algorithm=reinforce_plus_plus",), "reinforce_plus_plus is not declared `independent`"),
        (("algorithm=grpo", "algorithm.epochs=2"), "algorithm.epochs: 2 passes over all rows of a step, which"),
        (("algorithm=grpo", "rollout.top_p=0.9"), "are of a part of the tokens, which trainer.schedule=stream cannot"),
        (("algorithm=grpo", "algorithm.reward_shaping.name=running_norm"), "reward_shaping: running_norm is not decl"),
        (
            ("algorithm=grpo", "+algorithm.reward_shapings.running_norm={}"),
            "reward_shapings.running_norm: running_norm is",
        ),
        (("algorithm=grpo", "algorithm.rollout_filter.name=unequal_groups"), "chooses among all rows of a step"),
        (("algorithm=grpo", "trainer.max_staleness=1"), "max_staleness: 1 given, which trainer.schedule=stream does"),
        (("algorithm=grpo", "algorithm.prompts_per_step=1"), "minibatches = 2: each needs a prompt"),
    ],
)
def test_what_is_not_the_same_in_parts_is_refused_before_the_start(settings: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load("train", [*POOL, *settings])
