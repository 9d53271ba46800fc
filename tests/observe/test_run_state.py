"""State of a run: the same whether its metrics are given to it or read from its folder, as they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hybridflow.observe import run_state
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import locked
from hybridflow.observe.run_state import FollowedRun, RunState


def line(step: int, *, seconds: float = 2.0, **metrics: float) -> dict[str, float]:
    """Metrics of a step of a run that took 10 s to start, and 3 s for each step with all that is around it."""
    ran = {"timing_s/run/start": 10.0, "timing_s/run/steps": 2.0 * (step + 1), "timing_s/run/other": 1.0 * (step + 1)}
    return {"step": step, "timing_s/step": seconds, "reward/mean": step / 10, **ran, **metrics}


def test_what_is_left_is_told_by_the_last_steps_and_what_is_around_them() -> None:
    state = RunState("mine", 10)
    assert state.seconds_left() is None and state.done == 0 and state.seconds() is None
    state.take_metrics(line(0), 100.0)
    assert state.seconds_left() == 2.0 * 9, "of one step nothing but its own seconds is known"
    for step in range(1, 4):
        state.take_metrics(line(step), 100.0 + step)
    assert (state.done, state.seconds_left(), state.seconds()) == (4, pytest.approx(3.0 * 6), 22.0)
    assert state.newest_at == 103.0


def test_a_run_that_went_back_has_done_what_it_has() -> None:
    state = RunState("mine", 10)
    for step in (0, 1, 2, 1):
        state.take_metrics(line(step, **{"actor/kl": float(step)}), 0.0)
    assert state.done == 2 and state.series("reward/mean") == [(0, 0.0), (1, 0.1)] and state.last("actor/kl") == 1.0
    state.take_metrics({"step": 2, "validation/accuracy": 0.5}, 0.0)
    assert state.done == 2 and state.last("validation/accuracy") == 0.5 and state.newest["step"] == 1


def test_a_long_run_is_thinned_out_from_its_begin() -> None:
    state = RunState("mine")
    for step in range(3 * run_state.KEPT_STEPS):
        state.take_metrics(line(step), 0.0)
    steps = [step for step, _ in state.series("reward/mean")]
    assert len(steps) <= run_state.KEPT_STEPS and steps[0] == 0 and steps == sorted(set(steps))
    assert steps[-run_state.KEPT_STEPS // 2 :] == list(range(steps[-run_state.KEPT_STEPS // 2], steps[-1] + 1))
    assert state.done == 3 * run_state.KEPT_STEPS


def test_what_is_kept_of_a_very_long_run_is_of_all_of_it() -> None:
    """Of each fortieth of its steps, as a course has that many characters."""
    state = RunState("mine")
    for step in range(40 * run_state.KEPT_STEPS):
        state.take_metrics({"step": step, "reward/mean": 0.0}, 0.0)
    kept = {step * 40 // state.done for step, _ in state.series("reward/mean")}
    assert kept == {*range(40)}


def build_run(path: Path, steps: int) -> RunFolder:
    folder = RunFolder(path)
    folder.write_config("trainer: {steps: 4}\nrun: {name: mine}\n")
    folder.write_record({"name": "mine", "status": "running"})
    folder.event("start", step=0)
    for step in range(steps):
        folder.log(line(step))
    return folder


def test_a_folder_tells_what_its_run_would(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 3)
    given, read = RunState("mine", 4), RunState("?")
    for step in range(3):
        given.take_metrics(line(step), 0.0)
    run = FollowedRun(folder.path, read)
    with locked(folder.path):
        run.look_at_record()
    assert [event["event"] for event in run.look()] == ["start"]
    assert (read.metrics, read.newest, read.steps) == (given.metrics, given.newest, given.steps)
    assert (read.name, read.status, read.has_ended) == ("mine", "running", False)


def test_what_comes_is_taken_in_and_an_end_is_seen(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 1)
    state = RunState("mine")
    run = FollowedRun(folder.path, state)
    assert run.look() and not run.look()
    folder.log(line(1))
    folder.event("alarm", name="dead_reward", step=1)
    folder.event("checkpoint", step=2, seconds=1.0)
    assert [event["event"] for event in run.look()] == ["alarm", "checkpoint"]
    assert state.done == 2 and [alarm["name"] for alarm in state.alarms] == ["dead_reward"]
    assert [event["event"] for event in state.events] == ["start", "checkpoint"]
    folder.write_config("trainer: {steps: 9}\n")
    folder.write_record({"name": "other", "status": "failed", "error": "no\nmore"})
    run.look_at_record()
    assert (state.name, state.status, state.error, state.steps, state.has_ended) == (
        "other",
        "failed",
        "no\nmore",
        9,
        True,
    )


def test_a_new_run_of_the_name_begins_anew(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 3)
    state = RunState("mine")
    run = FollowedRun(folder.path, state)
    run.look()
    folder.archive_previous()
    run.look()
    assert state.done == 0 and state.newest == {} and not state.events
    build_run(tmp_path / "run", 1)
    run.look()
    assert state.done == 1 and len(state.events) == 1


def test_a_run_that_is_resumed_is_cut_back(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 2)
    state = RunState("mine")
    run = FollowedRun(folder.path, state)
    sizes = folder.sizes()
    folder.log(line(2))
    run.look()
    assert state.done == 3
    RunFolder(folder.path).truncate_to(sizes)
    run.look()
    assert state.done == 2 and len(state.events) == 1


def test_a_row_of_the_newest_step_is_shown(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 1)
    state = RunState("mine")
    run = FollowedRun(folder.path, state)
    run.look()
    assert state.sample is None
    folder.rollouts.mkdir()
    for rank in (10, 0):
        rows = [{"step": step, "response": f"{rank}.{step}.{row}"} for step in (0, 10) for row in range(3)]
        (folder.rollouts / f"rank{rank}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run.look()
    assert state.sample is not None and state.sample["response"] == "0.10.1"
