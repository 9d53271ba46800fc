"""What a run waits for, what it keeps, and with which weights it samples."""

from __future__ import annotations

import pytest

from hybridflow.observe.alarms import alarms_of
from tests.observe.alarms.records import Change, Metrics, names_of, run_of

DIFF = "actor/rollout_log_prob_diff_mean"
LAG = "rollout/version_lag_mean"


def test_weights_that_fall_behind() -> None:
    (alarm,) = alarms_of(run_of(30, lambda step: {LAG: 2.0 * (step - 9)}, since=10))
    assert alarm.name == "stale_weights" and "steps" in alarm.seen and alarm.last_step == 14


def test_rows_that_a_schedule_samples_behind() -> None:
    """Async: two updates, so one step, behind; their log-probs are those of other weights."""
    assert names_of(run_of(40, lambda _: {LAG: 2.0, DIFF: 0.08}, since=1)) == []
    assert names_of(run_of(40, lambda step: {LAG: float(step % 2), DIFF: 0.08 * (step % 2)})) == []


ALLOWED = "rollout/version_lag_allowed"


def test_a_lag_that_the_schedule_allows_is_harmless_until_policies_lie_far_apart() -> None:
    """Async with a bound of 4 steps of 2 updates."""
    lines = run_of(40, lambda step: {LAG: min(2.0 * step, 8.0), DIFF: 0.4, ALLOWED: 9.0}, since=1)
    assert names_of(lines) == []
    far = run_of(40, lambda step: {LAG: min(2.0 * step, 8.0), DIFF: 0.9, ALLOWED: 9.0}, since=1)
    assert names_of(far) == ["stale_weights"]
    beyond = run_of(40, lambda step: {LAG: 2.0 * step, DIFF: 0.05, ALLOWED: 9.0}, since=1)
    assert names_of(beyond) == ["stale_weights"]


def test_engines_that_compute_otherwise_under_a_schedule_that_samples_behind() -> None:
    """Only the rows of the first step are of the newest weights."""
    lines = run_of(40, lambda step: {LAG: 2.0 * (step > 0), DIFF: 0.1 + 0.02 * (step % 3)})
    (alarm,) = alarms_of(lines)
    assert (alarm.name, alarm.last_step) == ("log_probs_apart", 2)
    once = run_of(40, lambda step: {LAG: 2.0 * (step > 0), DIFF: 0.1 if step == 0 else 0.01})
    assert names_of(once) == []


def test_a_critic_that_learns_alone_at_first() -> None:
    """The policy's four updates a step begin with step 4, and async rows are one step old from the next one on."""

    def warms_up(step: int) -> Metrics:
        return {"actor/updates": ..., LAG: 0.0} if step < 4 else {"actor/updates": 4.0, LAG: 4.0 * (step > 4)}

    assert names_of(run_of(40, warms_up)) == []


@pytest.mark.parametrize("growth", [0.002, 0.05])
def test_weights_that_stay_behind_while_their_version_does_not(growth: float) -> None:
    assert names_of(run_of(30, lambda step: {DIFF: growth * step})) == ["stale_weights"]
    assert names_of(run_of(30, lambda step: {DIFF: growth * (step - 10)}, since=11)) == ["stale_weights"]


def test_every_other_sync_that_is_missing() -> None:
    assert names_of(run_of(40, lambda step: {DIFF: 0.1 if step % 4 else 2e-7})) == ["stale_weights"]


@pytest.mark.parametrize("apart", [0.06, 1.0])
def test_engines_that_compute_otherwise_from_the_first_step_on(apart: float) -> None:
    (alarm,) = alarms_of(run_of(30, lambda step: {DIFF: apart * (1 + 0.1 * (step % 3))}))
    assert (alarm.name, alarm.last_step) == ("log_probs_apart", 2)


def test_engines_that_compute_otherwise_from_some_step_on() -> None:
    assert "log_probs_apart" in names_of(run_of(30, lambda step: {DIFF: 0.1 * (1 + 0.05 * (step % 3))}, since=10))


def test_engines_that_compute_otherwise_and_not_always_as_much() -> None:
    uneven = (0.1, 0.17, 0.12, 0.16, 0.11, 0.15)
    assert names_of(run_of(30, lambda step: {DIFF: uneven[step % 6]}, since=10)) == ["log_probs_apart"]


@pytest.mark.parametrize("apart", [1e-4, 0.02])
def test_what_a_number_format_makes_of_log_probs(apart: float) -> None:
    assert names_of(run_of(40, lambda step: {DIFF: apart * (1 + 0.3 * (step % 3))})) == []


def test_steps_that_wait_for_grades() -> None:
    slow = {"timing_s/compute_reward": 1.5, "timing_s/step": 3.4}
    (alarm,) = alarms_of(run_of(30, lambda _: slow, since=10))
    assert alarm.name == "slow_grader" and "44%" in alarm.seen
    two = {"timing_s/compute_reward": 1.0, "timing_s/compute_cost": 1.0, "timing_s/step": 4.0}
    assert names_of(run_of(30, lambda _: two)) == ["slow_grader"]


@pytest.mark.parametrize(
    "beside",
    [
        {"timing_s/compute_reward": 1.0, "timing_s/step": 3.0},
        {"timing_s/compute_reward": 1.0, "timing_s/generate": 2.2, "timing_s/step": 2.3},
        {"timing_s/compute_reward": 6.0, "timing_s/generate": 8.0, "timing_s/step": 10.0},
        {"timing_s/compute_reward": 6.0, "timing_s/generate": 2.0, "timing_s/update_actor": 8.0, "timing_s/step": 9.0},
        {"timing_s/compute_reward": 0.02, "timing_s/generate": 0.01, "timing_s/step": 0.04},
    ],
    ids=["a third", "beside the sampling", "on a pool of their own", "beside the updates", "nobody waits"],
)
def test_graders_that_nobody_waits_for(beside: Metrics) -> None:
    assert names_of(run_of(30, lambda _: beside)) == []


def test_graders_that_are_slower_than_what_goes_on_beside_them() -> None:
    """A pool of their own, on which they take longer than sampling and learning together."""
    slow = {"timing_s/compute_reward": 9.0, "timing_s/update_actor": 1.0, "timing_s/generate": 2.0}
    slow["timing_s/step"] = 9.5
    (alarm,) = alarms_of(run_of(30, lambda _: slow))
    assert alarm.name == "slow_grader" and "79%" in alarm.seen


def test_steps_that_wait_for_environments() -> None:
    assert names_of(run_of(30, lambda _: {"timing_s/environment": 1.5})) == ["slow_environment"]
    assert names_of(run_of(30, lambda _: {"timing_s/environment": 0.5})) == []


def slower(rank: Change) -> Change:
    return lambda step: {"timing_s/straggling/main": 0.5, **rank(step)}


def test_one_rank_that_is_always_the_slowest() -> None:
    (alarm,) = alarms_of(run_of(30, slower(lambda _: {"perf/slowest_rank/main": 3.0}), since=10))
    assert alarm.name == "straggling_rank" and alarm.seen.startswith("rank 3 of pool main takes 0.50 s longer")
    assert names_of(run_of(30, slower(lambda step: {"perf/slowest_rank/main": float(step % 3)}))) == []
    assert names_of(run_of(30, lambda _: {"perf/slowest_rank/main": 3.0})) == [], "by little"


def test_a_rank_with_more_tokens_explains_that_it_is_slow() -> None:
    more = {"actor/token_imbalance": 1.8, "timing_s/straggling/main": 0.5, "perf/slowest_rank/main": 0.0}
    assert names_of(run_of(30, lambda _: more)) == ["token_imbalance"]
    assert names_of(run_of(30, lambda _: {"actor/token_imbalance": 1.2})) == []


@pytest.mark.parametrize(("rows", "told"), [(1.0, []), (4.0, []), (16.0, ["token_imbalance"])])
def test_a_few_rows_are_uneven_however_they_are_shared_out(rows: float, told: list[str]) -> None:
    uneven = {"actor/token_imbalance": 1.6, "actor/rows_per_replica": rows}
    assert names_of(run_of(30, lambda _: uneven)) == told


@pytest.mark.parametrize("name", ["actor/memory_peak_gib", "driver/memory_peak_gib", "reward/memory_peak_gib"])
def test_memory_that_grows_without_end(name: str) -> None:
    (alarm,) = alarms_of(run_of(80, lambda step: {name: 1.0 + 0.02 * step}))
    assert alarm.name == "memory_growth" and f"{name} " in alarm.seen and "20 MiB more each step" in alarm.seen


@pytest.mark.parametrize("every", [2, 5, 10])
def test_memory_that_grows_every_so_many_steps(every: int) -> None:
    """As what is kept of each validation, or of each save."""
    (alarm,) = alarms_of(run_of(100, lambda step: {"driver/memory_peak_gib": 1.0 + 0.2 * (step // every)}))
    assert alarm.name == "memory_growth" and alarm.last_step < 60


def test_memory_of_answers_that_grow() -> None:
    def grows(step: int) -> Metrics:
        return {"actor/memory_peak_gib": 1.0 + 0.02 * step, "response_length/mean": 100.0 * (1.0 + 0.03 * step)}

    assert names_of(run_of(80, grows)) == []


def test_memory_that_fills_up() -> None:
    name = "actor/memory_peak_gib"
    assert names_of(run_of(100, lambda step: {name: 2.0 - 1.0 * 0.9**step})) == []
    assert names_of(run_of(100, lambda step: {name: 1.0 if step < 30 else 1.6})) == [], "one step up, and no more"
    assert names_of(run_of(100, lambda step: {name: 0.05 + 0.001 * step})) == [], "nobody's trouble"
