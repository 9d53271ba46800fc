"""Updates that are not finite, too large, or none at all, and what looks like them."""

from __future__ import annotations

import math

import pytest

from hybridflow.observe.alarms import alarms_of
from tests.observe.alarms.records import NO_ADVANTAGE, ONE_REWARD, Metrics, names_of, run_of


@pytest.mark.parametrize(
    "change",
    [
        {"actor/pg_loss": math.nan},
        {"actor/grad_norm": None},
        {"actor/nonfinite_updates": 1.0},
        ONE_REWARD | {"reward/mean": math.nan, "actor/entropy": math.nan},
    ],
)
def test_a_number_that_is_not_finite_is_told_at_once_and_explains_all_else(change: Metrics) -> None:
    (alarm,) = alarms_of(run_of(20, lambda _: change, since=12))
    assert (alarm.name, alarm.first_step, alarm.last_step) == ("non_finite", 12, 12)


@pytest.mark.parametrize("name", ["timing_s/step", "perf/slowest_rank/main"])
def test_what_a_clock_says_is_no_number_of_learning(name: str) -> None:
    assert names_of(run_of(20, lambda _: {name: None}, since=12)) == []


@pytest.mark.parametrize(
    ("broken", "first", "cause"),
    [
        (["reward/mean", "critic/advantages_max", "actor/pg_loss", "actor/grad_norm"], "reward/mean", "grader"),
        (["actor/entropy", "actor/pg_loss", "actor/grad_norm"], "actor/entropy", "weights have been broken"),
        (["critic/advantages_max", "actor/pg_loss", "actor/grad_norm"], "critic/advantages_max", "estimator"),
        (["actor/pg_loss", "actor/grad_norm"], "actor/pg_loss", "loss of yours divides"),
        (["critic/grad_norm"], "critic/grad_norm", "A gradient is not finite though its loss is"),
        (["mine/ratio"], "mine/ratio", "mine/ratio is not finite"),
    ],
)
def test_what_was_first_not_finite_says_where_it_comes_from(broken: list[str], first: str, cause: str) -> None:
    (alarm,) = alarms_of(run_of(20, lambda _: dict.fromkeys(broken), since=12))
    assert alarm.seen.startswith(f"not finite: {first}") and cause in alarm.cause


@pytest.mark.parametrize("name", ["actor/kl_loss", "actor/approx_kl"])
def test_estimates_of_a_kl_from_few_tokens_are_large_by_chance(name: str) -> None:
    """One of a few samples that the policy has made very likely is enough, for some steps in a row."""
    few = run_of(80, lambda step: {name: 3.0 if step % 16 < 3 else 0.1, "rollout/rows": 4.0})
    assert names_of(few) == []
    assert names_of(run_of(80, lambda _: {name: 3.0, "rollout/rows": 4.0})) == ["kl_blow_up"]


@pytest.mark.parametrize("change", [{"actor/kl_loss": 3.0}, {"actor/kl": 2.5}, {"actor/approx_kl": -0.5}])
def test_a_policy_that_runs_away(change: Metrics) -> None:
    (alarm,) = alarms_of(run_of(30, lambda _: change | {"reward/mean": 0.15}, since=10))
    assert alarm.name == "kl_blow_up" and alarm.last_step <= 12 and next(iter(change)) in alarm.seen


def test_a_policy_that_gets_better_may_go_far_for_a_while() -> None:
    lines = run_of(40, lambda _: {"actor/kl_loss": 3.0}, since=10)
    assert names_of(lines[:17]) == [] and names_of(lines) == ["kl_blow_up"]


def test_a_mean_that_is_that_of_one_token_is_not_far() -> None:
    """Every other estimate of the KL is very large."""
    lines = run_of(60, lambda step: {"actor/kl_loss": 9.0 if step % 4 < 2 else 0.5, "reward/mean": 0.2})
    assert names_of(lines) == []


def test_one_step_that_breaks_the_policy() -> None:
    (alarm,) = alarms_of(run_of(30, lambda step: {"actor/approx_kl": 2.3} if step == 0 else {}))
    assert (alarm.name, alarm.first_step, alarm.last_step) == ("kl_blow_up", 0, 0)


UNMEASURED = {"actor/approx_kl": 0.0, "actor/kl_loss": ...}  # one update a step, and no reference


@pytest.mark.parametrize(
    "broken",
    [
        {"response_length/mean": 200.0, "rollout/truncated_fraction": 1.0},
        {"actor/entropy": 3.0},
        {"actor/entropy": 0.01},
        {"response_length/mean": 30.0},
    ],
    ids=["rambles", "says anything", "says one thing", "ends"],
)
def test_one_update_that_breaks_what_nothing_measures(broken: Metrics) -> None:
    after = UNMEASURED | {"reward/mean": 0.002} | broken
    alarms = alarms_of(run_of(30, lambda step: after if step >= 12 else UNMEASURED))
    (alarm,) = [alarm for alarm in alarms if alarm.name == "kl_blow_up"]
    assert (alarm.first_step, alarm.last_step) == (11, 13) and next(iter(broken)) in alarm.seen


@pytest.mark.parametrize(
    "after",
    [
        {"reward/mean": 0.0},
        {"reward/mean": 0.1, "response_length/mean": 200.0},
        {"reward/mean": 0.0, "response_length/mean": 120.0, "actor/entropy": 0.7},
        {"reward/mean": 0.0, "response_length/mean": 200.0, "rollout/rows": 8.0},
    ],
    ids=["a grader that breaks", "harder prompts", "prompts of another kind", "few rows"],
)
def test_rewards_that_are_lost_otherwise_are_no_blow_up(after: Metrics) -> None:
    lines = run_of(30, lambda step: UNMEASURED | (after if step >= 12 else {}))
    assert "kl_blow_up" not in names_of(lines)


def test_rewards_that_halve_from_step_to_step_are_an_update_that_is_too_large() -> None:
    """As of DAPO, which ends when no group is left that differs: after four steps."""

    def halves(step: int) -> Metrics:
        return UNMEASURED | {"reward/mean": (0.13, 0.02, 0.007, 0.003)[step]}

    (alarm,) = alarms_of(run_of(4, halves))
    assert (alarm.name, alarm.first_step, alarm.last_step) == ("kl_blow_up", 0, 3)


def test_what_becomes_of_a_policy_that_is_lost_follows_from_that() -> None:
    after = {
        "actor/approx_kl": 0.4, "actor/entropy": 2.6, "response_length/mean": 300.0, "rollout/truncated_fraction": 0.9,
    }  # fmt: skip
    assert names_of(run_of(40, lambda _: ONE_REWARD | NO_ADVANTAGE | after, since=8)) == ["kl_blow_up"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"actor/lr": 0.0}, "learning rate is 0"),
        ({"critic/lr": 0.0}, "learning rate is 0"),
        ({"rollout/kept_rows": 0.0}, "No row is left"),
        ({"actor/grad_norm": 0.0}, "No gradient reaches"),
        ({"actor/approx_kl": 0.0, "actor/kl_loss": 2e-16}, "Updates do not change"),
        ({"actor/approx_kl": 0.0, "actor/updates": 1.0, "actor/kl_loss": 0.0}, "Updates do not change"),
    ],
)
def test_updates_that_change_nothing(change: Metrics, cause: str) -> None:
    (alarm,) = alarms_of(run_of(30, lambda _: change, since=10))
    assert (alarm.name, alarm.last_step) == ("frozen_weights", 14) and cause in alarm.cause


@pytest.mark.parametrize(
    "change",
    [
        {"actor/lr": 1e-8, "actor/approx_kl": 3e-9, "actor/kl_loss": 5e-9},
        {"actor/approx_kl": 0.0, "actor/updates": 1.0},
        {"actor/approx_kl": 0.0, "actor/updates": 1.0, "actor/kl_loss": ...},
        {"actor/approx_kl": 0.0, "actor/grad_norm": 0.0} | ONE_REWARD | NO_ADVANTAGE,
    ],
    ids=["a warm-up", "one update", "nothing measures it", "nothing to learn"],
)
def test_weights_that_change_or_may_are_not_frozen(change: Metrics) -> None:
    assert "frozen_weights" not in names_of(run_of(30, lambda _: change))


def test_gradients_that_explode() -> None:
    large = {"reward/max": 1e6, "critic/advantages_max": 9e5, "actor/grad_norm": 4e5}
    (alarm,) = alarms_of(run_of(30, lambda _: large, since=10))
    assert alarm.name == "exploding_gradients" and "Rewards are so large" in alarm.cause
    (alarm,) = alarms_of(run_of(30, lambda _: {"critic/grad_norm": 2e4}, since=10))
    assert alarm.name == "exploding_gradients" and "gradients of critic" in alarm.cause
    assert names_of(run_of(30, lambda step: {"actor/grad_norm": 2e4 if step % 3 == 0 else 3.0})) == [], "single ones"
