"""A run that is interrupted or killed and resumed leaves what one that was never interrupted leaves, bit for bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_plugin import FAULT, MARK
from tests.trainer.conftest import APART, PPO, SMALL, Ended, Launch, Ran
from tests.trainer.processes import gone_within, kill, start_marked, wait_until_saved

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]  # each test is two or three runs


def metrics(ran: Ran) -> list[dict[str, float]]:
    """Every line, without what a clock says, and what memory was used (a resumed run begins with a refit)."""
    lines = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()]
    own = re.compile(
        r"timing_s/|perf/(tokens_per_s$|goodput$|slowest_rank/)|.*/(memory_peak_gib|tflops_per_rank|mfu)$|refit/"
    )
    return [{name: value for name, value in line.items() if not own.match(name)} for line in lines]


def saved(ran: Ran) -> dict[str, Any]:
    """What the roles' files of the last checkpoint contain: weights, moments, random states, weight version.

    But for torch_dist's index, which names the folder that it was written in.
    """
    newest = (ran.folder / "checkpoints" / "LATEST").read_text().strip()
    files = json.loads((ran.folder / "checkpoints" / newest / "manifest.json").read_text())["files"]
    return {name: entry for name, entry in files.items() if "/" in name and not name.endswith(".metadata")}


def record_of(ran: Ran) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((ran.folder / "run.json").read_text())
    return record


def scalars(ran: Ran, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a metric."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(ran.folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def assert_alike(resumed: Ran, uninterrupted: Ran) -> None:
    assert_same_results(resumed, uninterrupted)
    assert saved(resumed) == saved(uninterrupted)


def assert_same_results(resumed: Ran, uninterrupted: Ran) -> None:
    """Every metric but times and memory, all rows and the model are the same bit by bit."""
    assert uninterrupted.status == 0, uninterrupted.output
    assert resumed.status == 0, resumed.output
    assert metrics(resumed) == metrics(uninterrupted)
    own, others = ([*sorted((ran.folder / "rollouts").glob("*.jsonl"))] for ran in (resumed, uninterrupted))
    assert [file.name for file in own] == [file.name for file in others] != []
    for file in ("model/model.safetensors", *(f"rollouts/{file.name}" for file in own)):
        assert (resumed.folder / file).read_bytes() == (uninterrupted.folder / file).read_bytes(), file


def test_ppo_killed_in_its_second_step_and_interrupted_in_a_later_one_then_a_rank_lost(
    ppo: Ran, interrupted: Ended, launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At the first end the actor has not learned yet, and has no moments; the critic has. In its first step after the
    second, a rank dies when the critic has learned and the actor is about to; it goes on by itself.
    """
    assert "resuming from step " in interrupted.output
    monkeypatch.setenv(FAULT, "actor.update_actor:0:1:SIGKILL")
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    resumed = launch("train", "interrupted", *PPO, "trainer.save_every=1", "trainer.keep_last=1")
    assert "resuming from step " in resumed.output and "saved step 4 in " in resumed.output
    assert len(list((resumed.folder / "checkpoints").glob("step-*"))) == 1
    assert {name.split("/")[0] for name in saved(resumed)} == {"actor", "critic"}
    assert_alike(resumed, ppo)
    events = [json.loads(line) for line in (resumed.folder / "events.jsonl").read_text().splitlines()]
    failure, recovery = (event for event in events if event["event"] in ("failure", "recovery"))
    assert (failure["kind"], failure["rank"], recovery["pools"]) == ("infra", 1, ["main"])
    spent = record_of(resumed)["spent"]
    steps_s = sum(step["timing_s/step"] for step in resumed.steps)
    assert spent["steps"] == pytest.approx(steps_s, abs=1.0), "of three processes, those that were kept"
    assert spent["restart"] == pytest.approx(recovery["seconds"], abs=0.5) and spent["detection"] > 0
    assert spent["lost_work"] > 0, "the first process was killed in a step that it had not saved"
    starts_s = sum(event["seconds"] for event in events if event["event"] == "start")
    assert spent["start"] == pytest.approx(starts_s, abs=2.0), "of three processes"
    assert "killed by SIGKILL" in resumed.output and "went on with step " in resumed.output
    record = record_of(resumed)
    assert record["status"] == "ended" and [one["status"] for one in record["earlier"]] == ["killed", "interrupted"]
    assert scalars(resumed, "reward/mean") == scalars(ppo, "reward/mean") != []
    assert scalars(resumed, "validation/accuracy") == scalars(ppo, "validation/accuracy") != []


def test_generation_apart_and_a_step_that_was_not_saved(apart: Ran, launch: Launch) -> None:
    """Its second checkpoint is gone: the lines of its second step, and half of one, are cut off and written again.

    The rollout ranks have saved nothing: they are sent the weights of the checkpoint.
    """
    folder = apart.folder.parent / "ended_early"
    shutil.copytree(apart.folder, folder)
    for part in ("model", "traces"):
        shutil.rmtree(folder / part)
    for step in (2, 3):
        shutil.rmtree(folder / f"checkpoints/step-{step:06d}")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "half a li')
    resumed = launch("train", folder.name, *APART)
    assert "resuming from step 1: " in resumed.output
    assert {name.split("/")[0] for name in saved(resumed)} == {"actor"}
    assert_alike(resumed, apart)
    assert resumed.traces == apart.traces and "actor.update_actor" in resumed.traced("step-1-train-0")


@pytest.mark.slow
def test_generation_apart_killed(apart: Ran, place: Path, launch: Launch) -> None:
    process, mark = start_marked(["train", *SMALL, *APART, "run.name=killed", "trainer.save_every=1"], place)
    wait_until_saved(process, place / "runs/killed", 1)
    kill(mark)
    output, _ = process.communicate(timeout=60)
    assert gone_within(mark, 10) == [] and process.returncode == -9, output
    resumed = launch("train", "killed", *APART)
    assert "resuming from step " in resumed.output
    assert_alike(resumed, apart)
