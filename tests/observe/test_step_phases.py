"""Where a step's time goes: each call once, by its phase and role."""

from __future__ import annotations

from hybridflow.dispatch.method import methods
from hybridflow.observe import step_phases
from hybridflow.observe.step_phases import PhaseTime, phase_times
from hybridflow.roles import roles

BESIDE_STEPS = {  # saves, and validations
    "compare", "compute_answer_key", "journal_rollouts", "load_checkpoint", "save_checkpoint", "save_model"
}  # fmt: skip


def test_calls_are_sorted_by_phase_and_those_of_a_role_are_added_up() -> None:
    metrics = {
        "timing_s/update_actor": 1.0,
        "timing_s/update_policy": 0.5,
        "timing_s/update_critic": 2.0,
        "timing_s/generate_sequences": 3.0,
        "timing_s/sync_weights": 0.1,
        "timing_s/compute_log_prob": 0.2,
        "timing_s/score_twice": 0.3,
        "reward/mean": 1.0,
    }
    assert phase_times(metrics) == [
        PhaseTime("generation", "rollout", 3.0),
        PhaseTime("preparation", "actor", 0.2),
        PhaseTime("training", "critic", 2.0),
        PhaseTime("training", "actor", 1.5),
        PhaseTime("weight sync", "actor", 0.1),
        PhaseTime("other", "score_twice", 0.3),
    ]


def test_a_part_of_a_call_is_not_counted_again() -> None:
    parts = {f"timing_s/{part}": 1.0 for part in step_phases.PARTS}
    assert phase_times({**parts, "timing_s/idle/main": 1.0, "timing_s/run/steps": 9.0}) == []


def test_what_is_no_time_is_left_out() -> None:
    wrong = [None, float("nan"), float("inf"), -1.0, 0.0, "1", 1e300]
    assert [phase_times({"timing_s/update_actor": value}) for value in wrong] == [[]] * len(wrong)
    assert [step_phases.step_seconds({"timing_s/step": value}) for value in wrong] == [0.0] * len(wrong)


def test_every_method_of_our_roles_that_a_step_calls_has_a_phase() -> None:
    ours = [role for role in map(roles.get, roles) if role.__module__.startswith("hybridflow.")]
    called = {name for role in ours for name in methods(role)}
    assert len(called) > 20 and called - BESIDE_STEPS <= {*step_phases.CALLS}
