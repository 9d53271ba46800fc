"""Schedules on simulated roles: what a run takes by hand, and that what is learned from is what was sampled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.schedule import ks_distance, rows_of
from benchmarks.schedule_prediction import prediction
from hybridflow.planning.simulated_run import Costs, SimulatedRun
from hybridflow.scheduling import Sampler, SchedulePolicy, Stopped, policy_of, samplers
from hybridflow.scheduling.rollout_state import Rollout

SAMPLES = 4
PROMPTS = 16
SLOTS = PROMPTS * SAMPLES
STEPS = 64


def with_tail(steps: int) -> np.ndarray:
    """Lengths of so many steps' rows, [prompts, samples]; those of one prompt in ten are ten times as long."""
    chance = np.random.default_rng(7)
    prompts = steps * PROMPTS
    return chance.integers(40, 61, (prompts, SAMPLES)) * np.where(chance.random((prompts, 1)) < 0.1, 10, 1)


def trained_lengths(policy: SchedulePolicy, lengths: np.ndarray, learning: float = 0.5) -> np.ndarray:
    """The lengths of the rows that a run learns from, in their order, [prompts, samples].

    To learn from a step takes `learning` times as long as generating it in slots that are never idle.
    """
    costs = Costs(SLOTS, learned_token_s=learning / SLOTS, sync_s=20.0)
    outcome = SimulatedRun(policy, lengths, costs).finish()
    assert outcome.keeps(policy, len(lengths))
    return lengths[[prompt for _, prompt, _ in outcome.trained]]


def test_a_run_of_sync_takes_what_its_rows_and_updates_take() -> None:
    costs = Costs(slots=4, token_s=1.0, alone=1.0, learned_token_s=0.1, sync_s=2.0)
    outcome = SimulatedRun(policy_of("sync", 2), np.array([[10], [30], [20], [20]]), costs).finish()
    assert outcome.seconds == pytest.approx(2 + 30 + 4 + 2 + 20 + 4)
    assert (outcome.tokens, outcome.learning_s) == (pytest.approx(80), pytest.approx(8))


def test_partial_rows_stand_still_while_weights_are_synced() -> None:
    costs = Costs(slots=2, alone=1.0, learned_token_s=1.0, sync_s=5.0)
    policy = policy_of("async", 1, max_staleness=1)
    outcome = SimulatedRun(policy, np.array([[10], [40], [10]]), costs).finish()
    # 5: weights; 15: the first row; 25: learned; 30: weights; 50: the long row, 40 tokens since 5 with 5 of standing
    assert outcome.trained == [(0, 0, 0), (1, 1, 1), (2, 2, 1)]
    assert outcome.seconds == pytest.approx(5 + 40 + 5 + 40 + 5 + 10)


def test_rows_beyond_the_slots_wait_in_the_queue() -> None:
    costs = Costs(slots=1, alone=1.0)
    assert SimulatedRun(policy_of("sync", 3), np.array([[10], [30], [20]]), costs).finish().seconds == 60


def test_lent_slots_halve_what_sync_generates_in_and_rest_while_the_learner_works() -> None:
    """Two prompts are generated side by side, as if they were alone; then they are learned from."""
    costs = Costs(slots=1, token_s=1.0, learned_token_s=0.5, sync_s=1.0, lent_slots=1)
    lengths = np.array([[10], [20], [20], [20]])
    outcome = SimulatedRun(policy_of("sync", 2), lengths, costs).finish()
    assert outcome.ended == [pytest.approx(1 + 20 + 15), pytest.approx(36 + 1 + 20 + 20)]
    assert (outcome.busy, outcome.lent) == (pytest.approx(10 + 20), pytest.approx(20 + 20))


def test_a_row_on_a_lent_slot_goes_on_when_the_learner_waits_again() -> None:
    """Row 1 is on the lent slot: it rests while the learner is at row 0, and row 2 begins where row 0 was."""
    costs = Costs(slots=1, token_s=1.0, learned_token_s=1.0, lent_slots=1)
    outcome = SimulatedRun(policy_of("async", 1, max_staleness=1), np.array([[10], [15], [100]]), costs).finish()
    # 10: row 0, learned from till 20; 25: the rest of row 1, learned from till 40; row 2 has generated since 20
    assert outcome.trained == [(0, 0, 0), (1, 1, 1), (2, 2, 1)]
    assert outcome.ended == [pytest.approx(20), pytest.approx(40), pytest.approx(120 + 100)]


class OneCore(Costs):
    """Costs of a machine whose learner and generation share a core."""

    cores = 1.0


def test_what_shares_a_core_goes_at_half_the_pace_while_both_are_at_work() -> None:
    costs = {"slots": 1, "alone": 1.0, "learned_token_s": 1.0}
    policy = policy_of("async", 1, max_staleness=1)
    lengths = np.array([[10], [10]])
    # 10: row 0; then it is learned from beside row 1; then row 1 is learned from alone
    assert SimulatedRun(policy, lengths, Costs(**costs)).finish().ended == [pytest.approx(20), pytest.approx(30)]
    assert SimulatedRun(policy, lengths, OneCore(**costs)).finish().ended == [pytest.approx(30), pytest.approx(40)]


@settings(max_examples=20)
@given(
    seed=st.integers(0, 999),
    staleness=st.integers(0, 3),
    slots=st.integers(1, 6),
    lent=st.integers(1, 6),
    learning=st.floats(0.0, 4.0),
)
def test_the_bound_holds_with_lent_slots_and_nothing_that_rests_on_them_is_lost(
    seed: int, staleness: int, slots: int, lent: int, learning: float
) -> None:
    lengths = np.random.default_rng(seed).geometric(0.1, (24, 2))
    policy = policy_of("async", 3, samples_per_prompt=2, max_staleness=staleness)
    costs = Costs(slots, learned_token_s=learning, sync_s=1.0, lent_slots=lent)
    outcome = SimulatedRun(policy, lengths, costs).finish()
    assert outcome.keeps(policy, len(lengths))
    assert outcome.tokens == pytest.approx(lengths.sum())


class ShortestFirst(Sampler):
    """Is biased on purpose: takes what was generated fastest."""

    lengths: np.ndarray

    def rank(self, rollout: Rollout) -> tuple[int, ...]:
        return (int(self.lengths[rollout.prompt].max()),)


@pytest.fixture
def shortest_first(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(samplers._components, "shortest_first", ShortestFirst)
    return "shortest_first"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sync", {}),
        ("sync", {"spare_prompts": 4, "stopped": Stopped.next_step}),
        ("sync", {"spare_prompts": 4, "stopped": Stopped.long_round}),
        ("stream", {}),
        ("one_step_off", {}),
        ("async", {"max_staleness": 2, "sampler": "fifo"}),
        ("async", {"max_staleness": 2, "sampler": "windowed_fifo"}),
        ("async", {"max_staleness": 2, "sampler": "oldest_weights", "partial": False}),
        ("async", {"max_staleness": 2, "sampler": "shortest_first"}),
    ],
)
def test_of_a_drained_run_what_is_learned_from_is_what_was_sampled(
    name: str, changes: dict[str, Any], shortest_first: str
) -> None:
    lengths = ShortestFirst.lengths = with_tail(STEPS)
    trained = trained_lengths(policy_of(name, PROMPTS, samples_per_prompt=SAMPLES, **changes), lengths)
    assert trained.size >= 4000
    assert ks_distance(trained, lengths) <= 0.03


def test_what_over_sampling_drops_is_missing_from_what_is_learned_from() -> None:
    lengths = with_tail(STEPS * 5 // 4)
    policy = SchedulePolicy(PROMPTS, samples_per_prompt=SAMPLES, spare_prompts=4, stopped=Stopped.drop)
    trained = trained_lengths(policy, lengths)
    assert trained.size >= 4000
    assert ks_distance(trained, lengths) > 0.03


@pytest.mark.parametrize(
    ("sampler", "max_staleness", "biased"),
    [("fifo", 80, False), ("windowed_fifo", 80, False), ("shortest_first", 80, True), ("shortest_first", 2, False)],
)
def test_a_biased_sampler_shows_before_a_run_is_drained_unless_the_bound_is_tight(
    sampler: str, max_staleness: int, biased: bool, shortest_first: str
) -> None:
    """Of a run whose learner is slow: a sampler can put prompts off by S steps, of 64 here."""
    lengths = ShortestFirst.lengths = with_tail(STEPS + 48)
    changes = {"samples_per_prompt": SAMPLES, "max_staleness": max_staleness, "sampler": sampler, "window": 2}
    trained = trained_lengths(policy_of("async", PROMPTS, **changes), lengths, learning=2.0)[: STEPS * PROMPTS]
    assert trained.size >= 4000
    assert (ks_distance(trained, lengths) > 0.03) is biased


def test_rows_are_scored_on_the_learners_device_in_turn() -> None:
    """One step off: 10 s of generation, 2 of scoring, 20 of learning, so that the second step's rows wait for it."""
    costs = Costs(slots=1, alone=1.0, learned_token_s=2.0, scored_token_s=0.2, sync_s=1.0)
    outcome = SimulatedRun(policy_of("one_step_off", 1), np.array([[10], [10], [10]]), costs).finish()
    # weights, rows, scores, and each step, after which its successor's rows are scored
    assert outcome.ended == [pytest.approx(1 + 10 + 2 + 20 + 23 * step) for step in range(3)]
    assert outcome.learning_s == pytest.approx(60)


def write_runs(folder: Path, generation_s: float = 2.0, **step_s: float) -> None:
    """Write what runs measured: in sync steps of so long generation, 1 s of scoring, 1 of a sync, else of learning."""
    phases = {
        "timing_s/generate_sequences": generation_s,
        "timing_s/compute_ref_log_prob": 0.75,
        "timing_s/compute_reward": 0.25,
        "timing_s/refit": 1.0,
    }
    for name, seconds in step_s.items():
        (folder / name).mkdir()
        lines = [{"timing_s/step": 9.0}, *[{**phases, "timing_s/step": seconds}] * 10]
        (folder / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_a_run_is_predicted_from_one_of_sync(tmp_path: Path) -> None:
    """One step off, learning (2 s) hides generation, and scoring waits for both."""
    write_runs(tmp_path, sync=6.0, near=4.5, far=8.0)
    runs = {name: tmp_path / name for name in ("sync", "near", "far")}
    near = prediction("one_step_off", [(runs["sync"], runs["near"])])
    assert near["simulated_step_s"] == [pytest.approx(1 + 2 + 1)]
    assert (near["median"], near["within"]) == (round(4.0 / 4.5, 3), True)
    both = prediction("one_step_off", [(runs["sync"], runs[name]) for name in ("near", "far", "far")])
    assert (both["schedule"], both["pairs"], both["median"], both["within"]) == ("one_step_off", 3, 0.5, False)


@pytest.mark.parametrize(
    ("schedule", "step_s"),
    [
        ("one_step_off", 1 + 5 + 1),  # a sync, generation, which hides learning, and scoring
        ("async", 5 + 1),  # generation, which hides scoring too, stands still for a sync alone
    ],
)
def test_where_generation_is_the_slower_it_says_what_a_step_takes(tmp_path: Path, schedule: str, step_s: int) -> None:
    write_runs(tmp_path, generation_s=5.0, sync=9.0, other=7.0)
    found = prediction(schedule, [(tmp_path / "sync", tmp_path / "other")])
    assert found["simulated_step_s"] == [pytest.approx(step_s)]


def test_schedules_that_overlap_are_faster_than_sync_and_keep_their_bounds() -> None:
    chance = np.random.default_rng(1)
    rows = rows_of("short", 8, 0.5, chance.integers(16, 65, (40, 4)))
    faster = {row["schedule"]: row["over_sync"] for row in rows}
    assert all(row["bound_held"] for row in rows)
    assert faster["sync"] == 1.0 < faster["one_step_off"] < faster["async_1"]
