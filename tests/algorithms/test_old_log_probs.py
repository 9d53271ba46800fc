"""Who reads old log-probs before a step's first update: of ours a table, of a user's what is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.algorithms import Algorithm, StepContext, algorithms
from hybridflow.algorithms.grpo import GRPO
from hybridflow.algorithms.old_log_probs import OUR_ESTIMATORS, OUR_LOSSES, early_readers
from hybridflow.algorithms.ppo import PPO
from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.joining import concat
from hybridflow.config import compose
from hybridflow.config.schema import AlgorithmConfig
from hybridflow.dispatch import RowsT, using
from hybridflow.losses.advantages import advantages, needing, needs, reads_too
from hybridflow.losses.loss import Loss, LossInputs, Surroundings, losses
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.roles import Role, roles

KL = "algorithm.reward_kl_coef"
READERS = {
    "cispo": [],
    "dapo": [],
    "dr_grpo": [],
    "gdpo": [],
    "grpo": [],
    "gspo": [],
    "ppo": [KL],
    "reinforce_plus_plus": [KL],
    "reinforce_plus_plus_baseline": [],
    "remax": [KL],
    "rloo": [KL],
    "safe_rlhf": [KL],
}
"""Of each recipe with a policy loss, the settings that want a pass before its first update."""


def settings(option: str, *overrides: str) -> AlgorithmConfig:
    """Settings as they come with an option, of one minibatch if nothing else is said."""
    given = ["experiment=addition", f"algorithm={option}", "algorithm.minibatches=1", *overrides]
    return compose.compose("train", given).to_config().algorithm


def keys(config: AlgorithmConfig, flow: type[Algorithm]) -> list[str]:
    """The settings that want a pass."""
    return [reader.partition(": ")[0] for reader in early_readers(config, flow)]


@pytest.mark.parametrize("option", compose.options("algorithm"))
def test_which_recipes_need_a_pass(option: str) -> None:
    config = settings(option)
    flow = algorithms.get(config.name)
    if "policy" in flow.losses:
        assert keys(config, flow) == READERS[option]
    else:
        assert option not in READERS and keys(config, flow)


def test_what_is_said_of_ours_without_torch_is_what_they_declare() -> None:
    ours = [name for name in advantages if advantages.get(name).__module__.startswith("hybridflow.")]
    assert {*ours} == {*OUR_ESTIMATORS}
    assert not any("old_log_probs" in (*needs(name), *reads_too(name)) for name in ours)
    known = [name for name in losses if losses.get(name).__module__.startswith("hybridflow.")]
    assert {name: losses.get(name).takes_own_log_probs() for name in known} == OUR_LOSSES
    for name in known:
        declared = losses.get(name).declared()
        assert ("old_log_probs" in (*declared.needs, *declared.optional)) == OUR_LOSSES[name]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("algorithm.epochs=2", "algorithm.epochs"),
        ("algorithm.reward_kl_coef=0.01", KL),
        ("algorithm.policy_loss.kl_coef=0.5", None),
        ("algorithm.minibatches=4", None),
        ("algorithm.policy_loss.correction.name=row_masked", None),
        ("algorithm.rollout_filter.name=unequal_groups", None),
    ],
)
def test_settings_that_want_a_pass(override: str, key: str | None) -> None:
    assert keys(settings("grpo", override), GRPO) == [key] * (key is not None)


# Components of a user


class Plain(Loss):
    needs: ClassVar = ("old_log_probs",)

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        raise NotImplementedError


class Prepares(Plain):
    def prepare(self, rows: Batch, here: Surroundings) -> Batch:
        return rows


class Optional(Plain):
    needs: ClassVar = ()
    optional: ClassVar = ("old_log_probs",)


class Pairs(Plain):
    of_pairs = True


class Other(Plain):
    needs: ClassVar = ("advantages",)


class Judge(Role[RowsT]):
    @using("dp_tokens", needs=("response_ids",), gives=("verdict",))
    def judge(self, rows: RowsT) -> RowsT:
        raise NotImplementedError


class Reader(Judge[RowsT]):
    @using("dp_tokens", needs=("response_ids",), optional=("old_log_probs",), gives=("surprise",))
    def surprise(self, rows: RowsT) -> RowsT:
        raise NotImplementedError


class Silent(Judge[RowsT]):
    @using("dp_tokens", gives=("verdict",))
    def judge(self, rows: RowsT) -> RowsT:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("loss", "leaves_out"), [(Plain, True), (Prepares, False), (Optional, False), (Pairs, False), (Other, False)]
)
def test_a_users_loss_that_looks_at_a_micro_batch_at_a_time_needs_no_pass(
    loss: type[Loss], leaves_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses._components, "own", loss)
    flow = type("Own", (GRPO,), {"losses": ("own",)})
    assert (not keys(settings("grpo"), flow)) == leaves_out
    beside = type("Beside", (GRPO,), {"losses": ("policy", "own")})
    assert (not keys(settings("grpo"), beside)) == (leaves_out or loss is Other)


@pytest.mark.parametrize(
    ("marked", "leaves_out"),
    [
        (needing("group_id"), True),
        (needing("old_log_probs"), False),
        (needing("group_id", optional=("old_log_probs",)), False),
    ],
)
def test_a_users_estimator_is_asked(
    marked: Callable[[Any], Any], leaves_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(advantages._components, "own", marked(lambda inputs: None))
    config = settings("grpo")
    own = replace(config, advantage=replace(config.advantage, name="own"))
    assert (not keys(own, GRPO)) == leaves_out
    without = type("Without", (GRPO,), {"components": ("policy_loss",)})
    assert not keys(own, without), "a flow that has no estimator asks none"


@pytest.mark.parametrize(("judge", "leaves_out"), [(Judge, True), (Reader, False), (Silent, False)])
def test_a_role_reads_what_it_declares_or_anything(
    judge: type[Role], leaves_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(roles._components, "judge", judge)
    flow = type("Judged", (GRPO,), {"roles": (*GRPO.roles, "judge")})
    assert (not keys(settings("grpo"), flow)) == leaves_out


def test_a_flow_that_names_no_loss_or_gives_them_as_a_column_has_a_pass() -> None:
    for attributes in ({"losses": ()}, {"columns": ("group_id", "old_log_probs")}):
        assert keys(settings("grpo"), type("Own", (GRPO,), attributes)) == ["algorithm.name"]


# Flows


class Actor:
    """Scores rows by their numbers, and notes how many at a time; updates note what they get."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.updates: list[BatchRef] = []

    def compute_log_prob(self, rows: BatchRef) -> BatchRef:
        self.calls.append(f"score {len(rows)}")
        return BatchRef.from_local(Batch(old_log_probs=rows.get().dense("n") + 0.5))

    def compute_advantage(self, rows: BatchRef, *, kl_coef: float) -> BatchRef:
        return BatchRef.from_local(Batch(advantages=np.zeros(len(rows))))

    def update_actor(self, rows: BatchRef) -> None:
        self.calls.append(f"update {len(rows)}")
        self.updates.append(rows)

    def recall_log_probs(self, rows: BatchRef) -> BatchRef:
        self.calls.append(f"recall {len(rows)}")
        return BatchRef.from_local(Batch(old_log_probs=rows.get().dense("n") + 0.5))


def learned(
    flow: type[Algorithm], config: AlgorithmConfig, rows: int, context: StepContext | None = None, **roles: Any
) -> Actor:
    actor = Actor()
    made = flow(config, {"actor": actor, "reference": None, "reward": None, **roles})
    made.begin_step(context or StepContext(7))
    made.learn(BatchRef.from_local(Batch(n=np.arange(float(rows)))))
    return actor


def test_one_update_has_no_pass() -> None:
    assert learned(GRPO, settings("grpo"), 12).calls == ["update 12"]


def test_of_several_minibatches_the_first_is_not_scored_and_the_others_before_any_update() -> None:
    actor = learned(GRPO, settings("grpo", "algorithm.minibatches=3"), 12)
    assert actor.calls == ["score 8", "update 4", "update 4", "update 4"]


@pytest.mark.parametrize(
    ("minibatches", "expected"),
    [(1, ["update 12", "recall 12"]), (3, ["score 8", "update 4", "recall 4", "update 4", "update 4"])],
)
def test_a_step_whose_tokens_are_written_has_the_log_probs_of_all_rows(minibatches: int, expected: list[str]) -> None:
    context = StepContext(7, logs_tokens=True)
    assert learned(GRPO, settings("grpo", f"algorithm.minibatches={minibatches}"), 12, context).calls == expected
    rows = concat(context.scored).get()
    assert sorted(rows.dense("n")) == [*range(12)]
    assert np.array_equal(rows.dense("old_log_probs"), rows.dense("n") + 0.5)


def test_what_a_flow_has_as_a_column_is_not_asked_for_again() -> None:
    context = StepContext(7, logs_tokens=True)
    assert learned(Scored, settings("grpo", "algorithm.minibatches=2"), 12, context).calls == [
        "score 12", "update 6", "update 6",
    ]  # fmt: skip
    assert context.scored == []


def test_a_step_of_no_rows_asks_for_nothing() -> None:
    context = StepContext(7, logs_tokens=True)
    assert learned(GRPO, BARE, 0, context).calls == [] and context.scored == []


def test_rows_that_are_learned_from_twice_are_scored_whole() -> None:
    calls = learned(GRPO, settings("grpo", "algorithm.minibatches=2", "algorithm.epochs=2"), 12).calls
    assert calls == ["score 12", *["update 6"] * 4]


def test_a_schedule_that_learns_in_parts_has_each_scored() -> None:
    calls = learned(GRPO, settings("grpo"), 12, StepContext(7, in_parts=True)).calls
    assert calls == ["score 12", "update 12"]


class Critic:
    def compute_values(self, rows: BatchRef) -> BatchRef:
        return BatchRef.from_local(Batch(values=np.zeros(len(rows))))

    def update_critic(self, rows: BatchRef) -> None:
        pass


def test_while_only_the_critic_learns_rows_are_scored_as_ever() -> None:
    config = settings("ppo", "algorithm.reward_kl_coef=0", "algorithm.critic_warmup_steps=4")
    assert learned(PPO, config, 12, StepContext(3), critic=Critic()).calls == ["score 12"]
    assert learned(PPO, config, 12, StepContext(4), critic=Critic()).calls == ["update 12"]


class Forgets(GRPO):
    """Flow of a user's that does not ask for old log-probs."""

    losses: ClassVar = ("policy",)

    def learn(self, rollout: BatchRef) -> BatchRef:
        for rows in self.minibatches(rollout):
            self.actor.update_actor(rows)
        return rollout


def test_minibatches_score_what_a_flow_has_not() -> None:
    """Where a second update would else take its own log-probs for those of the policy that the step began with."""
    assert learned(Forgets, settings("grpo", "algorithm.minibatches=2"), 12).calls == [
        "score 6", "update 6", "update 6",
    ]  # fmt: skip
    assert learned(Forgets, settings("grpo", "algorithm.epochs=2"), 12).calls == ["score 12", "update 12", "update 12"]
    unnamed = type("Unnamed", (Forgets,), {"losses": ()})
    assert learned(unnamed, settings("grpo"), 12).calls == ["update 12"], "nobody knows what its losses read"


@pytest.mark.parametrize("flow", [GRPO, Forgets])
def test_where_the_worker_scores_its_own_way_it_scores_all_rows(flow: type[Algorithm]) -> None:
    actor: Any = Actor()
    made = flow(settings("grpo", "algorithm.minibatches=2"), {"actor": actor, "reference": None, "reward": None})
    made.scores_first = True
    made.learn(BatchRef.from_local(Batch(n=np.arange(12.0))))
    assert actor.calls == ["score 12", "update 6", "update 6"]


@given(rows=st.integers(0, 40), minibatches=st.integers(1, 8), step=st.integers(0, 3))
def test_parts_are_those_of_a_flow_that_scores_all_first(rows: int, minibatches: int, step: int) -> None:
    config = replace(BARE, minibatches=minibatches)
    own, scored = (learned(flow, config, rows, StepContext(step)).updates for flow in (GRPO, Scored))
    assert len(own) == len(scored)
    for number, (mine, theirs) in enumerate(zip(own, scored, strict=True)):
        mine_rows, rows_of_all = mine.get(), theirs.get()
        assert np.array_equal(mine_rows.dense("n"), rows_of_all.dense("n"))
        assert ("old_log_probs" in mine_rows) == (number > 0)
        if number:
            assert np.array_equal(mine_rows.dense("old_log_probs"), rows_of_all.dense("old_log_probs"))


class Scored(GRPO):
    """GRPO whose rows are all scored before."""

    first_update_scores = False


BARE = settings("grpo", "algorithm.rollout_filter.name=none")
