"""Each cause is named where its signs are, and not where something else looks like it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hybridflow.observe.alarms import alarms_of
from tests.observe.alarms.records import Change, Metrics, names_of, run_of, well

ONE_REWARD = {
    "reward/mean": 0.0,
    "reward/std": 0.0,
    "reward/min": 0.0,
    "reward/max": 0.0,
    "rollout/unequal_groups": 0.0,
}
RIGHT = {"reward/mean": 1.0, "reward/std": 0.0, "reward/min": 1.0, "reward/max": 1.0, "rollout/unequal_groups": 0.0}
NO_ADVANTAGE = {"critic/advantages_max": 0.0, "critic/advantages_min": -0.0}


def times(name: str, factor: float) -> Change:
    """A metric that is so many times what it is where a run is well."""
    return lambda step: {name: well(step)[name] * factor}


def growing(name: str, a_step: float, since: int) -> Change:
    """A metric that grows by a factor each step."""
    return lambda step: {name: well(step)[name] * a_step ** (step - since)}


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


@pytest.mark.parametrize("since", [0, 10])
def test_one_reward_for_all_is_a_dead_reward(since: int) -> None:
    (alarm,) = alarms_of(run_of(30, lambda _: ONE_REWARD, since=since))
    assert (alarm.name, alarm.last_step) == ("dead_reward", since + 4)


def test_a_constant_that_is_no_0_is_one_too() -> None:
    one = {"reward/min": 0.5, "reward/max": 0.5}
    assert names_of(run_of(30, lambda _: ONE_REWARD | one)) == ["dead_reward"]


def solving(step: int) -> Metrics:
    """A policy that learns its task until nothing is left to learn; from step 25 on it makes no mistake."""
    learned = min(0.2 + 0.04 * step, 1.0)
    if step >= 25:
        return RIGHT | {"actor/entropy": 0.002}
    return {
        "reward/mean": learned,
        "rollout/unequal_groups": 0.7 if learned < 0.95 else 0.01,
        "actor/entropy": 0.6 * (1.01 - learned),
    }


@pytest.mark.parametrize("steps", [30, 60, 200])
def test_a_task_that_is_solved_is_no_trouble(steps: int) -> None:
    assert names_of(run_of(steps, solving)) == []


def test_rewards_that_are_the_best_from_one_step_to_the_next_are_a_broken_grader() -> None:
    assert names_of(run_of(30, lambda _: RIGHT, since=15)) == ["dead_reward"]
    assert names_of(run_of(30, lambda _: RIGHT)) == ["dead_reward"], "from the first step on"


def test_prompts_that_are_too_easy_from_the_first_step_on() -> None:
    easy = {"reward/mean": 0.99, "rollout/unequal_groups": 0.01}
    assert names_of(run_of(30, lambda _: easy)) == ["all_groups_alike"]


def test_few_rows_may_be_alike_by_chance_but_not_in_all_steps() -> None:
    few = ONE_REWARD | {"rollout/rows": 8.0}
    assert names_of(run_of(7, lambda _: few)) == []
    (alarm,) = alarms_of(run_of(30, lambda _: few))
    assert (alarm.name, alarm.first_step, alarm.last_step) == ("dead_reward", 0, 7)
    alike = {"rollout/unequal_groups": 0.0, "rollout/rows": 16.0}
    assert names_of(run_of(7, lambda _: alike)) == []
    assert names_of(run_of(8, lambda _: alike)) == ["all_groups_alike"]


def test_rewards_that_are_one_number_in_a_step_and_another_in_the_next() -> None:
    def by_step(step: int) -> Metrics:
        return {"reward/min": 0.1 * step, "reward/max": 0.1 * step, "rollout/unequal_groups": ...}

    (alarm,) = alarms_of(run_of(30, by_step))
    assert (alarm.name, alarm.last_step) == ("dead_reward", 4)


def test_grades_that_fail_are_a_dead_reward() -> None:
    gone = {name: ... for name in ("reward/mean", "reward/std", "reward/min", "reward/max")}
    for failed, change in ((0.3, {}), (1.0, gone)):
        (alarm,) = alarms_of(run_of(30, lambda _, c=change, f=failed: {**c, "reward/failed_share": f}, since=10))  # type: ignore[misc]
        assert alarm.name == "dead_reward" and "fails" in alarm.cause
    assert names_of(run_of(30, lambda _: {"reward/failed_share": 0.05})) == []


@pytest.mark.parametrize("name", ["cost/failed_share", "reward/baseline_failed_share"])
def test_costs_and_baselines_that_fail_are_named_too(name: str) -> None:
    (alarm,) = alarms_of(run_of(30, lambda _: {name: 0.5}, since=10))
    assert alarm.name == "dead_reward" and name in alarm.seen


@pytest.mark.parametrize(
    "change",
    [
        {"rollout/unequal_groups": 0.01},
        {"rollout/unequal_groups": ..., "rollout/groups_kept": 0.03},
        {"rollout/unequal_groups": ..., **NO_ADVANTAGE},
    ],
)
def test_groups_that_are_alike_while_rewards_differ(change: Metrics) -> None:
    (alarm,) = alarms_of(run_of(30, lambda _: change, since=10))
    assert alarm.name == "all_groups_alike" and 12 <= alarm.last_step <= 14


def test_entropy_that_collapses() -> None:
    (alarm,) = alarms_of(run_of(40, growing("actor/entropy", 0.7, 10), since=10))
    assert alarm.name == "entropy_collapse" and 14 < alarm.last_step < 22
    assert names_of(run_of(40, times("actor/entropy", 0.001))) == ["entropy_collapse"], "from the first step on"


def test_entropy_of_a_policy_that_learns_well() -> None:
    assert names_of(run_of(40, times("actor/entropy", 0.3), since=10)) == []
    assert names_of(run_of(40, lambda step: {"actor/entropy": 2.0 if step < 10 else 0.15})) == [], "it still tries"


def test_entropy_that_is_given_for_no_better_reward() -> None:
    """Slowly, so that it never comes to be gone: 0.13 nats in the last step."""

    def gives(step: int) -> Metrics:
        return {"actor/entropy": 0.6 * 0.95**step, "reward/mean": 0.2 - 0.002 * step}

    assert names_of(run_of(30, gives)) == ["entropy_collapse"]
    assert names_of(run_of(30, lambda step: {"actor/entropy": 0.6 * 0.95**step})) == [], "its rewards are better"
    assert names_of(run_of(30, lambda step: gives(step) | {"cost/mean": 0.5 - 0.01 * step})) == [], "it costs less"


def shorter(left: float, **also: Any) -> Change:
    return lambda step: {"response_length/mean": well(step)["response_length/mean"] * left, **also}


def test_answers_that_become_shorter_are_a_collapse_unless_they_are_better_for_it() -> None:
    worse = {"reward/mean": 0.1}
    assert names_of(run_of(30, shorter(0.4, **worse), since=10)) == ["length_collapse"]
    assert names_of(run_of(30, shorter(0.7, **worse), since=10)) == []
    assert names_of(run_of(30, shorter(0.2), since=10)) == [], "concise, and rewards have grown"


@pytest.mark.parametrize(("begin", "end"), [(100.0, 5.0), (5.0, 1.2)])
def test_answers_of_which_hardly_anything_is_left_are_a_collapse_however_they_are_graded(
    begin: float, end: float
) -> None:
    def shrinks(step: int) -> Metrics:
        return {"response_length/mean": begin + (end - begin) * min(step / 10, 1.0)}

    assert names_of(run_of(30, shrinks)) == ["length_collapse"]


@pytest.mark.parametrize("rows", [2.0, 8.0, 16.0])
def test_lengths_of_few_rows_differ_by_chance(rows: float) -> None:
    """The mean of a few answers is twice or half of the last step's."""
    lengths = (40.0, 110.0, 95.0, 210.0, 60.0, 45.0, 230.0)

    def by_chance(step: int) -> Metrics:
        return {"response_length/mean": lengths[step % 7], "rollout/rows": rows, "reward/mean": 0.2}

    assert names_of(run_of(80, by_chance)) == []


@pytest.mark.parametrize("rows", [2.0, 8.0])
def test_of_few_rows_many_are_cut_off_by_chance(rows: float) -> None:
    shares = (0.0, 0.5, 0.5, 0.5, *[0.0] * 12)
    few = run_of(80, lambda step: {"rollout/truncated_fraction": shares[step % 16], "rollout/rows": rows})
    assert names_of(few) == []


@pytest.mark.parametrize("name", ["actor/kl_loss", "actor/approx_kl"])
def test_estimates_of_a_kl_from_few_tokens_are_large_by_chance(name: str) -> None:
    """One of a few samples that the policy has made very likely is enough, for some steps in a row."""
    few = run_of(80, lambda step: {name: 3.0 if step % 16 < 3 else 0.1, "rollout/rows": 4.0})
    assert names_of(few) == []
    assert names_of(run_of(80, lambda _: {name: 3.0, "rollout/rows": 4.0})) == ["kl_blow_up"]


def test_few_rows_are_taken_together_until_they_are_enough() -> None:
    def collapses(step: int) -> Metrics:
        return shorter(0.3 if step >= 20 else 1.0)(step) | {"rollout/rows": 8.0, "reward/mean": 0.1}

    (alarm,) = alarms_of(run_of(60, collapses))
    assert alarm.name == "length_collapse" and 20 < alarm.last_step <= 28
    cut_off = {"rollout/truncated_fraction": 0.4, "rollout/rows": 8.0}
    (alarm,) = alarms_of(run_of(60, lambda _: cut_off))
    assert (alarm.name, alarm.first_step, alarm.last_step) == ("truncation", 0, 7)


def test_answers_that_learn_to_end_are_no_collapse() -> None:
    def learns(step: int) -> Metrics:
        cut_off = max(0.9 - 0.1 * step, 0.02)
        return {"rollout/truncated_fraction": cut_off, "response_length/mean": 100 + 200 * cut_off}

    assert names_of(run_of(30, learns)) == []


def longer(**also: Any) -> Change:
    return lambda step: {"response_length/mean": well(step)["response_length/mean"] * 3, **also}


def test_answers_that_grow_are_an_explosion_unless_they_are_better_for_it() -> None:
    worse = {"reward/mean": 0.1}
    assert names_of(run_of(30, longer(**worse), since=10)) == ["length_explosion"]
    assert names_of(run_of(30, longer(), since=10)) == [], "rewards have grown too"
    cut_off = {"rollout/truncated_fraction": 0.8}
    assert names_of(run_of(30, longer(**cut_off), since=10)) == ["length_explosion"], "it explains the truncation"


@pytest.mark.parametrize("change", [{"actor/kl_loss": 3.0}, {"actor/kl": 2.5}, {"actor/approx_kl": -0.5}])
def test_a_policy_that_runs_away(change: Metrics) -> None:
    (alarm,) = alarms_of(run_of(30, lambda _: change, since=10))
    assert alarm.name == "kl_blow_up" and alarm.last_step <= 12 and next(iter(change)) in alarm.seen


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
    assert (alarm.first_step, alarm.last_step) == (11, 14) and next(iter(broken)) in alarm.seen


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


def test_one_step_that_is_out_of_the_way_raises_nothing() -> None:
    odd = {"actor/kl_loss": 30.0, "actor/entropy": 0.0, "response_length/mean": 1.0, "rollout/truncated_fraction": 1.0}
    assert names_of(run_of(30, lambda step: odd if step == 12 else {})) == []


def test_answers_that_grow_up_to_the_limit_are_an_explosion() -> None:
    def grows(step: int) -> Metrics:
        longer = min(1.0 + 0.05 * max(step - 10, 0), 1.5)
        return {"response_length/mean": 100 * longer, "rollout/truncated_fraction": 0.02 + 1.8 * (longer - 1.0)}

    assert names_of(run_of(40, grows)) == ["length_explosion"]


def test_a_grader_that_is_dead_while_some_answers_are_cut_off() -> None:
    cut_off = {"rollout/truncated_fraction": 0.4}
    assert names_of(run_of(30, lambda _: cut_off | ONE_REWARD, since=10)) == ["truncation", "dead_reward"]
    failing = {"rollout/truncated_fraction": 1.0, "reward/failed_share": 1.0}
    assert names_of(run_of(30, lambda _: failing)) == ["dead_reward", "truncation"]


@pytest.mark.parametrize("since", [0, 10])
def test_answers_that_are_cut_off_explain_that_none_is_right(since: int) -> None:
    cut_off = ONE_REWARD | NO_ADVANTAGE | {"rollout/truncated_fraction": 0.99}
    assert names_of(run_of(30, lambda _: cut_off, since=since)) == ["truncation"]
