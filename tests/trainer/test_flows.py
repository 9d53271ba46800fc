"""Two steps of every algorithm on the same two ranks, with the settings that come with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridflow import preflight
from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch, BatchRef
from hybridflow.config import compose
from hybridflow.config.schema import Config
from hybridflow.conformance import shared_rank  # noqa: F401  registers the graders that the settings name
from hybridflow.conformance.shared_roles import SharedRoles, start_shared_roles
from hybridflow.controller import put
from hybridflow.dispatch import concat
from hybridflow.errors import HybridFlowError
from hybridflow.tasks.grades import GRADES, graded
from tests.docs.metric_names import untold
from tests.forked_ranks import forking

pytestmark = pytest.mark.ranks
OPTIONS = sorted(file.stem for file in (compose.configs_dir() / "algorithm").glob("*.yaml"))
ON_THEIR_OWN = ("reward_model", "cost_model")  # have tests of their own
TRAINED = {"ppo": {"actor", "critic"}, "safe_rlhf": {"actor", "critic", "cost_critic"}}


def config_of(model: Path, option: str, *overrides: str) -> Config:
    pairs = option == "dpo"
    sizes = ("algorithm.prompts_per_step=9", "algorithm.critic_warmup_steps=0", "rollout.max_concurrent_rows=72")
    may_fail = ("reward.max_failed_share=0.9", "cost.max_failed_share=0.9")
    overrides = (*may_fail, *overrides)
    own = (f"algorithm={option}", f"task=addition{'_pairs' if pairs else ''}", f"actor.model.path={model}")
    cut = ("actor.parallel.tensor=1", "reward.grader=conformance_even", "cost.grader=conformance_count")
    return preflight.load("train", ["experiment=addition", *own, *cut, *sizes, *overrides])


@dataclass
class Shared:
    """Roles that any algorithm may call."""

    stage: SharedRoles
    model: Path

    def algorithm(self, option: str, *overrides: str) -> Algorithm:
        """The algorithm of that option, over the shared roles."""
        return self.stage.algorithm(config_of(self.model, option, *overrides))

    def step(self, algorithm: Algorithm, number: int) -> tuple[BatchRef, dict[str, float]]:
        """One step, as the trainer takes it."""
        return self.stage.step(algorithm, number)


@pytest.fixture(scope="module")
def shared(tiny: Callable[..., Path], forks: dict[str, str]) -> Iterator[Shared]:
    """The roles of Safe-RLHF, which are those of all the others."""
    model = tiny(layers=2, hidden=64, heads=2, kv_heads=2)
    with forking(forks), start_shared_roles([config_of(model, "safe_rlhf")], print) as stage:
        yield Shared(stage, model)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in ON_THEIR_OWN])
def test_two_steps(shared: Shared, option: str) -> None:
    """Its trained roles learn, no other does, nothing is infinite, and generation has the weights of training."""
    algorithm = shared.algorithm(option)
    for number in range(2):
        _, metrics = shared.step(algorithm, number)
        assert all(math.isfinite(value) for value in metrics.values())
        assert untold(metrics) == []
        learned = {name.removesuffix("/grad_norm") for name in metrics if name.endswith("/grad_norm")}
        assert learned == TRAINED.get(option, {"actor"})
        assert all(metrics[f"{role}/grad_norm"] > 0 for role in learned)
        assert metrics.get("actor/rollout_log_prob_diff_max", 0.0) < 1e-5
        assert ("actor/kl" in metrics or "actor/kl_loss" in metrics) == (
            algorithm.uses_reference_kl and option != "dpo"
        )


def test_rows_are_sampled_apart_also_where_their_prompts_are_the_same(shared: Shared) -> None:
    algorithm, supervisor = shared.algorithm("grpo", "algorithm.samples_per_prompt=2"), shared.stage.running.supervisor
    prompts = algorithm.next_prompts()

    def responses(rows: BatchRef) -> list[list[int]]:
        return [row.tolist() for row in rows.get().ragged("response_ids")]

    def apart(some: list[list[int]], others: list[list[int]]) -> bool:
        return sum(a == b for a, b in zip(some, others, strict=True)) < 9

    supervisor.begin_step(0)
    first, second = (responses(algorithm.generate(prompts)) for _ in range(2))
    supervisor.begin_step(1)
    together = responses(algorithm.generate(concat([prompts, prompts])))
    bare = [responses(prompts | shared.stage.running.groups["actor"].generate_sequences(prompts)) for _ in range(2)]
    supervisor.begin_step(0)
    streamed = responses(concat([*algorithm.stream(prompts)]))
    supervisor.finish_step()
    assert apart(first, second) and apart(together[:18], together[18:]) and apart(first[::2], first[1::2])
    assert bare[0] != bare[1], "a call on the role knows its step and its number too"
    assert streamed == first, "the rows of the step's first call, at once or as they finish"


def test_remax_compares_with_the_greedy_response(shared: Shared) -> None:
    rollout, _ = shared.step(shared.algorithm("remax", "algorithm.reward_kl_coef=0"), 0)
    rows = rollout.get()
    expected = rows.dense("rewards") - rows.dense("baseline_rewards")
    found = [row[-1] for row in rows.ragged("advantages")]
    assert len(rows) == 9 and np.allclose(found, expected) and set(expected.tolist()) > {0.0}


def test_dapo_draws_until_there_are_enough_groups(shared: Shared) -> None:
    """Of two samples half of the groups are equal, so nine groups take two draws or three."""
    small = ("algorithm.samples_per_prompt=2", "algorithm.minibatches=1")
    rollout, metrics = shared.step(shared.algorithm("dapo", *small), 0)
    rewards = rollout.select_columns(["rewards"]).get().dense("rewards").reshape(9, 2)
    assert (rewards[:, 0] != rewards[:, 1]).all()
    assert rollout.driver_columns["group_id"].tolist() == np.repeat(np.arange(9), 2).tolist()
    assert 2 <= metrics["rollout/draws"] <= 6 and 0 < metrics["rollout/groups_kept"] < 1
    few, metrics = shared.step(shared.algorithm("dapo", *small, "algorithm.max_draws=1"), 1)
    assert 0 < len(few) < 18 and metrics["rollout/draws"] == 1


def test_dapo_says_if_no_group_teaches_anything(shared: Shared) -> None:
    config = config_of(shared.model, "dapo", "algorithm.max_draws=2")
    config.algorithm.samples_per_prompt = 1  # a run with it would be refused before its start
    algorithm = shared.stage.algorithm(config)
    with pytest.raises(HybridFlowError, match=r"of 2 x 9 prompts none has samples that rollout_filter keeps"):
        algorithm.step(algorithm.next_prompts())


def test_a_filter_only_keeps_rows_from_being_learned_from(shared: Shared) -> None:
    overlong = shared.algorithm("grpo", "algorithm.rollout_filter.name=overlong", "algorithm.epochs=2")
    rollout, metrics = shared.step(overlong, 0)
    ended = int((~rollout.select_columns(["truncated"]).get().dense("truncated")).sum())
    assert len(rollout) == 72 and 0 < ended < 72
    lengths, rows = rollout.lengths("response_ids") + rollout.lengths("prompt_ids"), rollout.get()
    assert metrics["perf/trained_tokens"] == 2 * lengths[~rows.dense("truncated")].sum()


class Failing:
    """A role of grades, of which every fourth fails."""

    def __init__(self, role: Any) -> None:
        self.role = role

    def __getattr__(self, name: str) -> Any:
        def call(rows: BatchRef, **options: Any) -> BatchRef:
            found = getattr(self.role, name)(rows, **options).get()
            (column,) = [name for name in found.columns if name in GRADES]
            grades = np.where(np.arange(len(rows)) % 4 == 1, np.nan, found.dense(column)).astype(np.float32)
            return put(Batch(**{**dict(found.items()), column: grades}))

        return call


GRADED = [option for option in OPTIONS if option not in (*ON_THEIR_OWN, "sft", "dpo")]


@pytest.mark.parametrize("option", GRADED)
def test_rows_whose_grades_failed_are_left_out_of_every_algorithm(shared: Shared, option: str) -> None:
    """Also of one whose baseline or whose cost has failed; nothing else about the step is different."""
    algorithm = shared.algorithm(option)
    for role in ("reward", "cost"):
        if hasattr(algorithm, role):
            setattr(algorithm, role, Failing(getattr(algorithm, role)))
    rollout, metrics = shared.step(algorithm, 0)
    rows = rollout.get()
    ok = graded(rows)
    assert not ok.all() or option == "dapo", "its filter has left them out already"
    assert all(math.isfinite(value) for value in metrics.values())
    learned = {name.removesuffix("/grad_norm") for name in metrics if name.endswith("/grad_norm")}
    assert learned == TRAINED.get(option, {"actor"}) and all(metrics[f"{role}/grad_norm"] > 0 for role in learned)
    for role in learned:
        assert metrics[f"{role}/trained_rows"] == ok.sum() * algorithm.config.epochs
    assert metrics["rollout/kept_rows"] == ok.sum() and metrics["rollout/rows"] == len(rows)
    assert not any(row.any() for row, good in zip(rows.ragged("advantages"), ok, strict=True) if not good)


def test_the_critic_is_told_how_much_it_explains_and_greedy_rows_have_names_of_their_own(shared: Shared) -> None:
    rollout, metrics = shared.step(shared.algorithm("ppo"), 0)
    rows = rollout.get()
    rewards, returns = rows.dense("rewards").astype(float), rows.ragged("returns").values
    assert "greedy/response_length/mean" not in metrics
    for name, value in (("mean", rewards.mean()), ("std", rewards.std(ddof=1)), ("min", rewards.min())):
        assert metrics[f"reward/{name}"] == pytest.approx(value, abs=1e-6)
    errors = returns - rows.ragged("values").values
    assert metrics["critic/vf_explained_var"] == pytest.approx(1 - errors.var() / returns.var(), abs=1e-4)
    rollout, metrics = shared.step(shared.algorithm("remax"), 0)
    assert metrics["response_length/mean"] == rollout.lengths("response_ids").mean()
    assert metrics["greedy/response_length/max"] > 0 and "reward/baseline_std" in metrics


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean", "fixed_length_mean"])
def test_the_loss_that_is_reported_is_the_one_that_is_minimized(shared: Shared, aggregate: str) -> None:
    """At the first update all ratios are 1, so it is the mean of -A as the aggregate takes it."""
    own = ("algorithm.minibatches=1", f"algorithm.policy_loss.aggregate={aggregate}")
    rollout, metrics = shared.step(shared.algorithm("grpo", *own), 0)
    rows, lengths = rollout.get(), rollout.lengths("response_ids")
    taken = [-row.sum() for row in rows.ragged("advantages")]
    each = {"token_mean": lengths.sum(), "sequence_mean": lengths * len(rows), "fixed_length_mean": 8 * len(rows)}
    assert metrics["actor/pg_loss"] == pytest.approx((np.array(taken) / each[aggregate]).sum(), abs=1e-5)


def test_the_coefficient_of_the_kl_moves_and_is_saved(shared: Shared) -> None:
    adaptive = ("+algorithm.reward_kl_control.options.target=1e-9", "algorithm.reward_kl_control.name=adaptive")
    algorithm = shared.algorithm("ppo", *adaptive)
    used = [shared.step(algorithm, number)[1]["actor/kl_coef"] for number in range(2)]
    assert used[0] == 0.001 and used[1] != used[0]
    other = shared.algorithm("ppo", *adaptive)
    other.restore(algorithm.state())
    assert other.kl.coef == algorithm.kl.coef != used[1]


def test_the_multiplier_moves_as_the_cost_lies_to_its_limit(shared: Shared) -> None:
    """What the model of all these tests says by now is not known, so neither is the side of the limit that it is on."""
    algorithm = shared.algorithm("safe_rlhf")
    found = [shared.step(algorithm, number)[1] for number in range(2)]
    used = [*(metrics["cost/multiplier"] for metrics in found), algorithm.lagrange.multiplier]  # type: ignore[attr-defined]
    costs = [metrics["cost/mean"] - algorithm.config.lagrange.limit for metrics in found]
    assert used[0] == 1.0 and np.sign(np.diff(used)).tolist() == np.sign(costs).tolist() and all(costs)
    other = shared.algorithm("safe_rlhf")
    other.restore(algorithm.state())
    assert other.state() == algorithm.state() and other.lagrange.multiplier == used[-1]  # type: ignore[attr-defined]
