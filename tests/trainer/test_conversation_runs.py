"""Whole runs whose rollouts are conversations, by schedules whose rows are under way over many calls."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_plugin import FAULT, MARK
from tests.trainer import late_guess
from tests.trainer.conftest import SMALL, Launch, Ran
from tests.trainer.processes import kill_driver, start_marked, wait_until_saved
from tests.trainer.test_checkpoints import assert_alike

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

# 64 numbers, so that a run asks for few of them twice; entropy lets every step learn, whatever was found.
GUESS = (
    "experiment=guess",
    "placement=rollout_pool",
    "task.options.highest=63",
    "algorithm.prompts_per_step=8",
    "algorithm.samples_per_prompt=2",
    "algorithm.minibatches=2",
    "algorithm.policy_loss.entropy_coef=0.01",
    "trainer.steps=3",
    "trainer.log_rollouts_every=1",
    "trainer.save_every=3",
    "trainer.validate_every=2",
    "trainer.keep_best=",
)
IN_STEP = (*GUESS, "environment.in_step=true")
LATE = (
    *GUESS,
    f"plugins=[{late_guess.__name__}]",
    f"environment.name={late_guess.NAME}",
    "trainer.steps=6",
    "trainer.save_every=1",
    "trainer.schedule=async",
    "trainer.max_staleness=2",
    "rollout.max_concurrent_rows=6",
)
FAILING = f"plugins=[{late_guess.__name__},benchmarks.fault_plugin]"


def rows_of(ran: Ran) -> list[dict[str, Any]]:
    """The rows that were learned from."""
    files = sorted((ran.folder / "rollouts").glob("rank*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def asked(ran: Ran) -> Counter[int]:
    """How many conversations were learned from, by the question that they are of."""
    return Counter(row["sample_id"] for row in rows_of(ran))


def assert_paced(ran: Ran, sync: Ran, staleness: int) -> None:
    """Every conversation is learned from in one step, none of its sampled tokens beyond the bound."""
    assert ran.status == 0, ran.output
    assert asked(ran) == asked(sync)
    updates = ran.steps[-1]["actor/updates"]
    assert all(step["rollout/version_lag_max"] <= staleness * updates for step in ran.steps)
    assert all(step["environment/failed_share"] == 0 for step in ran.steps if "environment/failed_share" in step)


def test_conversations_by_async_with_a_bound_of_zero_leave_the_bits_of_sync(launch: Launch) -> None:
    """Weights, moments, conversations and every metric but times and memory, where turns begin together."""
    sync = launch("train", "talks_sync", *IN_STEP)
    assert max(step["environment/turns"] for step in sync.steps) > 1
    assert_alike(launch("train", "talks_zero", *IN_STEP, "trainer.schedule=async", "trainer.max_staleness=0"), sync)


def test_stream_of_one_minibatch_leaves_the_bits_of_sync(launch: Launch) -> None:
    settings = (*IN_STEP, "algorithm.minibatches=1", "trainer.steps=2", "trainer.save_every=2")
    sync = launch("train", "talks_whole", *settings)
    assert_alike(launch("train", "talks_streamed", *settings, "trainer.schedule=stream"), sync)


def test_stream_learns_from_minibatches_of_conversations_that_have_finished(launch: Launch) -> None:
    """All conversations of a step are sampled with its first weights, in all of their turns."""
    settings = (*LATE[:-3], "algorithm.minibatches=4", "trainer.steps=3")
    sync = launch("train", "late_sync", *settings)
    ran = launch("train", "late_stream", *settings, "trainer.schedule=stream")
    assert ran.status == 0, ran.output
    assert asked(ran) == asked(sync)
    assert [step["actor/updates"] for step in ran.steps] == [4.0] * 3
    assert [step["rollout/version_lag_max"] for step in ran.steps] == [3.0] * 3
    assert {(row["step"], row["weight_version"]) for row in rows_of(ran)} == {(0, 0), (1, 4), (2, 8)}


def test_one_step_off_samples_conversations_with_the_weights_of_one_step_before(launch: Launch) -> None:
    sync = launch("train", "talks_sync", *IN_STEP)
    ran = launch("train", "talks_one_step_off", *IN_STEP, "trainer.schedule=one_step_off")
    assert ran.status == 0, ran.output
    assert asked(ran) == asked(sync)
    lags = [step["rollout/version_lag_max"] for step in ran.steps]
    assert lags == [0.0, 2.0, 2.0], "two updates a step"


def test_async_killed_and_resumed_and_its_ranks_lost_loses_no_conversation_and_doubles_none(
    place: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forks: dict[str, str]
) -> None:
    """The driver is killed in a step; then a rank that generates is, and one that learns."""
    slower = ("+environment.options.late_s=4", "trainer.validate_every=0")  # a validation waits for what is under way
    sync = launch("train", "six_talks", *LATE, "trainer.schedule=sync", "trainer.max_staleness=null")
    process, mark = start_marked(["train", *SMALL, "run.name=late", *LATE, *slower, FAILING], place, **forks)
    wait_until_saved(process, place / "runs/late", 2)
    kill_driver(process, mark)
    monkeypatch.setenv(FAULT, "rollout.advance_rollouts:30:0:SIGKILL,actor.update_actor:3:0:SIGKILL")
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    resumed = launch("train", "late", *LATE, *slower, FAILING)
    assert "resuming from step " in resumed.output
    assert_paced(resumed, sync, 2)
    assert len(resumed.events("recovery")) == 2
    mixed = [runs for row in rows_of(resumed) if isinstance(runs := row["weight_version"], list)]
    assert mixed, "no conversation went on over an update: this shows nothing"
    versions = [[version for version, _ in runs if version >= 0] for runs in mixed]
    assert versions == [sorted(found) for found in versions]
    assert any(-1 in dict(runs) for runs in mixed), "what the environment said, no weights sampled"


@pytest.mark.parametrize("parallel", ["tensor=2", "data"])
def test_async_on_two_ranks_that_generate(parallel: str, launch: Launch) -> None:
    """Of one replica, whose ranks hear the same of the environments, or of two."""
    tensor = 2 if parallel == "tensor=2" else 1
    pools = ("placement.pools.train=1", "actor.parallel.tensor=1", "placement.pools.rollout=2", "trainer.steps=4")
    pools = (*pools, f"rollout.parallel.tensor={tensor}")
    sync = launch("train", f"talks_sync_{tensor}", *LATE, *pools, "trainer.schedule=sync", "trainer.max_staleness=null")
    assert_paced(launch("train", f"talks_async_{tensor}", *LATE, *pools, "rollout.max_concurrent_rows=3"), sync, 2)
