"""Each cause is named where its signs are, and not where something else looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.observe.alarms import alarms_of
from tests.observe.alarms.records import NO_ADVANTAGE, ONE_REWARD, Change, Metrics, names_of, run_of, well

RIGHT = {"reward/mean": 1.0, "reward/std": 0.0, "reward/min": 1.0, "reward/max": 1.0, "rollout/unequal_groups": 0.0}


def times(name: str, factor: float) -> Change:
    """A metric that is so many times what it is where a run is well."""
    return lambda step: {name: well(step)[name] * factor}


def growing(name: str, a_step: float, since: int) -> Change:
    """A metric that grows by a factor each step."""
    return lambda step: {name: well(step)[name] * a_step ** (step - since)}


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
    assert names_of(run_of(15, lambda _: few)) == []
    (alarm,) = alarms_of(run_of(30, lambda _: few))
    assert (alarm.name, alarm.first_step, alarm.last_step) == ("dead_reward", 0, 15)
    alike = {"rollout/unequal_groups": 0.0, "rollout/rows": 16.0}
    assert names_of(run_of(7, lambda _: alike)) == []
    assert names_of(run_of(8, lambda _: alike)) == ["all_groups_alike"]


def test_rows_so_few_that_steps_are_often_alike_are_so_many_times_in_a_row() -> None:
    """Every third step has a right answer, and then for a while none has."""

    def by_chance(step: int) -> Metrics:
        right = {"reward/max": 1.0, "rollout/unequal_groups": 0.5}
        return ONE_REWARD | {"rollout/rows": 8.0} | (right if step % 3 == 0 and step < 30 else {})

    assert names_of(run_of(30 + 18, by_chance)) == [], "20 steps, of which before 18 of 28 were so: 1.4e-4"
    assert names_of(run_of(30 + 25, by_chance)) == ["dead_reward"]


def falling(step: int) -> Metrics:
    """A policy that learns what is wrong: step by step, until nothing is right."""
    mean = max(0.3 - 0.025 * step, 0.0)
    return {"reward/mean": mean} if mean else ONE_REWARD


def test_rewards_that_fall_step_by_step_are_no_broken_grader() -> None:
    (alarm,) = alarms_of(run_of(60, falling))
    assert alarm.name == "falling_reward" and 8 < alarm.last_step < 15
    with_bonus = run_of(60, lambda step: falling(step) | {"actor/entropy_loss": 0.6})
    assert alarm.last_step < alarms_of(with_bonus)[0].last_step, "what may outweigh them is waited for"


@pytest.mark.parametrize(
    "change",
    [{"reward/mean": 0.15}, {"reward/mean": 0.09, "rollout/rows": 32.0}, {"reward/mean": 0.05, "rollout/rows": 8.0}],
    ids=["harder prompts", "not significant", "too few rows"],
)
def test_rewards_that_are_lower_by_chance_or_a_little_are_not_falling(change: Metrics) -> None:
    few = {name: value for name, value in change.items() if name == "rollout/rows"}
    lines = run_of(40, lambda step: change if step >= 10 else {"reward/mean": 0.2} | few)
    assert names_of(lines) == []


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


def test_entropy_that_rises_for_nothing() -> None:
    def rises(step: int) -> Metrics:
        return {"actor/entropy": min(0.6 * 1.2**step, 2.6), "reward/mean": max(0.2 - 0.01 * step, 0.11)}

    assert names_of(run_of(40, rises)) == ["entropy_explosion"]
    (alarm,) = alarms_of(run_of(40, lambda step: rises(step) | {"actor/entropy_loss": 1.0}))
    assert "bonus" in alarm.cause and alarm.last_step < 8
    assert names_of(run_of(40, lambda step: rises(step) | {"reward/mean": 0.2 + 0.01 * step})) == [], "it finds more"
    assert names_of(run_of(40, lambda step: rises(step) | {"actor/entropy": 0.1 * (1 + min(step, 3))})) == [], "little"


def test_a_term_that_asks_for_less_entropy_is_told_before_it_has_done_its_work() -> None:
    def gives(step: int) -> Metrics:
        return {"actor/entropy": 0.6 * 0.95**step, "reward/mean": 0.2 - 0.002 * step, "actor/entropy_loss": 0.5}

    (alarm,) = alarms_of(run_of(25, gives))
    assert alarm.name == "entropy_collapse" and alarm.last_step < 18


GREEDY = {"actor/entropy": 0.05, "rollout/unequal_groups": 0.1}


def test_sampling_that_is_greedy_from_the_start() -> None:
    far = GREEDY | {"actor/kl_loss": 9.0, "reward/mean": 0.2}
    (alarm,) = alarms_of(run_of(30, lambda step: GREEDY if step < 3 else far))
    assert (alarm.name, alarm.last_step) == ("greedy_sampling", 2) and "temperature" in alarm.cause


def test_short_answers_that_hold_no_entropy_are_sampled_greedily_without_groups_too() -> None:
    short = GREEDY | {"rollout/unequal_groups": ..., "response_length/mean": 4.0}
    assert names_of(run_of(30, lambda _: short)) == ["greedy_sampling"]


@pytest.mark.parametrize(
    "other",
    [
        {"rollout/unequal_groups": 0.7},
        {"rollout/unequal_groups": ...},
        {"reward/mean": 0.97},
        {"actor/entropy": 0.3},
        {"rollout/rows": 8.0},
    ],
    ids=["unlike groups", "long answers", "nothing left to learn", "entropy", "few rows"],
)
def test_a_model_that_is_sure_of_much_is_not_sampled_greedily(other: Metrics) -> None:
    assert "greedy_sampling" not in names_of(run_of(30, lambda _: GREEDY | other))


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
