"""Groups that are graded while others of their call are sampled; no ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.trainer.grading_ahead import PARTS, GradingAhead

PROMPTS, SAMPLES = 16, 4
ROWS = PROMPTS * SAMPLES
SLOW = {"timing_s/compute_reward": 1.0, "timing_s/generate": 10.0}
FAST = {"timing_s/compute_reward": 0.1, "timing_s/generate": 10.0}


class Roles:
    """Stands for both groups, and writes down who was called for which rows, and what else was asked of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.graded: list[list[int]] = []
        self.options: list[dict[str, Any]] = []

    def sync_weights(self) -> str:
        return "synced"

    def generate_sequences(self, prompts: BatchRef, **options: Any) -> BatchRef:
        self.calls.append(("generate", len(prompts)))
        return sampled(prompts.get())

    def stream_sequences(self, prompts: BatchRef, **options: Any) -> Iterator[tuple[np.ndarray, BatchRef]]:
        """A row at a time, of all groups in turn: the first whole group comes late."""
        self.options.append(options)
        order = np.random.default_rng(3).permutation(ROWS // 2)
        for row in [*order.tolist(), *range(ROWS // 2, ROWS)]:
            self.calls.append(("row", row))
            rows = np.array([row])
            yield rows, sampled(prompts.select(rows).get()).with_origin(rows)

    def compute_reward(self, rollout: BatchRef) -> BatchRef:
        rows = rollout.get()
        self.calls.append(("grade", len(rows)))
        self.graded.append(rows.dense("group_id").tolist())
        return BatchRef.from_local(Batch(rewards=np.array([float(row.sum()) for row in rows.ragged("response_ids")])))


def sampled(prompts: Batch) -> BatchRef:
    """What a row says depends on its prompt and which copy it is."""
    pairs = zip(prompts.ragged("prompt_ids"), prompts.dense("copy_id").tolist(), strict=True)
    return BatchRef.from_local(Batch(response_ids=Ragged.of([[7 * int(p.sum()) + c] * (1 + c) for p, c in pairs])))


def prompts() -> BatchRef:
    batch = Batch(prompt_ids=Ragged.of([[n] * (1 + n % 3) for n in range(PROMPTS)]), answer=np.arange(PROMPTS))
    return BatchRef.from_local(batch).repeat(SAMPLES)


@pytest.fixture
def roles() -> Roles:
    return Roles()


@pytest.fixture
def ahead(roles: Roles) -> GradingAhead:
    """One that grades ahead, as its first step was worth it."""
    made = GradingAhead(roles, roles)
    take_step(made)
    made.end_step(SLOW)
    roles.calls.clear()
    roles.graded.clear()
    return made


def take_step(ahead: GradingAhead) -> Batch:
    rollout = prompts()
    rollout |= ahead.actor.generate_sequences(rollout)
    return (rollout | ahead.reward.compute_reward(rollout)).get()


def test_rows_and_rewards_are_the_same_and_come_in_the_same_order(ahead: GradingAhead, roles: Roles) -> None:
    found = take_step(ahead)
    assert any(name == "row" for name, _ in roles.calls), "they were streamed"
    assert found == take_step(GradingAhead(Roles(), Roles()))


def test_whole_groups_are_graded_while_others_are_sampled(ahead: GradingAhead, roles: Roles) -> None:
    take_step(ahead)
    names = [name for name, _ in roles.calls]
    assert names.index("grade") < len(names) - 1 - names[::-1].index("row"), "before the last row"
    assert 2 <= names.count("grade") <= PARTS
    assert all(len(groups) == SAMPLES * len(set(groups)) for groups in roles.graded)
    assert sorted(group for groups in roles.graded for group in groups) == np.repeat(range(PROMPTS), SAMPLES).tolist()
    assert roles.options == [{"together": ROWS // PARTS}]


def test_a_first_step_and_one_whose_graders_are_fast_sample_as_ever(roles: Roles) -> None:
    made = GradingAhead(roles, roles)
    for metrics in (FAST, {}, SLOW):
        take_step(made)
        assert roles.calls == [("generate", ROWS), ("grade", ROWS)]
        made.end_step(metrics)
        roles.calls.clear()
    take_step(made)
    assert ("grade", ROWS) not in roles.calls


def test_rows_that_are_not_those_that_were_graded_are_graded_as_they_are(ahead: GradingAhead, roles: Roles) -> None:
    rollout = prompts()
    rollout |= ahead.actor.generate_sequences(rollout)
    roles.calls.clear()
    half = ahead.reward.compute_reward(rollout.slice(0, ROWS // 2))
    others = BatchRef.from_local(Batch(answer=np.arange(ROWS)))
    changed = rollout.select_columns(["prompt_ids", "response_ids"]) | others
    ahead.reward.compute_reward(changed)
    ahead.reward.compute_reward(rollout.select(np.arange(ROWS)[::-1]))
    assert roles.calls == [("grade", ROWS // 2), ("grade", ROWS), ("grade", ROWS)]
    more = BatchRef.from_local(Batch(score=np.arange(ROWS)))
    assert len(ahead.reward.compute_reward(rollout | more)) == ROWS and len(roles.calls) == 3, "no grader reads it"
    assert len(half) == ROWS // 2


def test_a_flow_that_did_not_ask_for_its_rewards_is_graded_as_it_asks(ahead: GradingAhead, roles: Roles) -> None:
    rollout = prompts()
    ahead.actor.generate_sequences(rollout)
    ahead.end_step(SLOW)
    roles.calls.clear()
    take_step(ahead)
    assert roles.calls == [("generate", ROWS), ("grade", ROWS)]


def test_rows_that_are_sampled_otherwise_are_not_graded_ahead(ahead: GradingAhead, roles: Roles) -> None:
    ahead.actor.generate_sequences(prompts(), temperature=0.0)
    assert roles.calls == [("generate", ROWS)]
    assert ahead.actor.sync_weights() == "synced"
