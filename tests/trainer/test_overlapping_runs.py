"""Whole runs of schedules that generate for one step while they learn from another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fault_plugin import FAULT, MARK
from tests.trainer import bound_zero
from tests.trainer.conftest import APART, FAULTS, SIZES, SMALL, Launch, Ran
from tests.trainer.processes import kill_driver, start_marked, wait_until_saved
from tests.trainer.test_checkpoints import assert_alike

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

ENTRIES = ("prompt", "response")


def rows_by_step(ran: Ran) -> dict[int, list[tuple[str, ...]]]:
    """The prompts and responses of each step, in an order of their own."""
    found: dict[int, list[tuple[str, ...]]] = {}
    for file in sorted((ran.folder / "rollouts").glob("rank*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            found.setdefault(line["step"], []).append(tuple(line[name] for name in ENTRIES))
    return {step: sorted(rows) for step, rows in found.items()}


def test_with_a_bound_of_zero_the_overlapping_driver_leaves_the_bits_of_sync(apart: Ran, launch: Launch) -> None:
    """Weights, moments, rollouts and every metric but times and memory: verl-project/verl#6780 did not hold."""
    settings = (*APART, f"plugins=[{bound_zero.__name__}]", f"trainer.schedule={bound_zero.NAME}")
    assert_alike(launch("train", "bound_zero", *settings), apart)


def test_async_with_a_bound_of_zero_leaves_the_bits_of_sync(apart: Ran, launch: Launch) -> None:
    """Weights, moments, rollouts and every metric but times and memory, also where rows may go on over updates."""
    settings = (*APART, "trainer.schedule=async", "trainer.max_staleness=0", "trainer.save_every=1")
    assert_alike(launch("train", "async_zero", *settings, "trainer.keep_last=3"), apart)


def test_ppo_by_async_with_a_bound_of_zero_leaves_the_bits_of_sync(launch: Launch, warm: Ran) -> None:
    """The critic learns alone for a step, so generation keeps weights that a sync would not change."""
    settings = ("experiment=addition", "placement=rollout_pool", "algorithm.prompts_per_step=8", *SIZES)
    settings = (*settings, "algorithm.critic_warmup_steps=1", "trainer.validate_every=2")
    sync = launch("train", "apart_ppo", *settings)
    zero = launch("train", "async_ppo", *settings, "trainer.schedule=async", "trainer.max_staleness=0")
    assert_alike(zero, sync)


def trained_prompts(ran: Ran) -> list[str]:
    """The prompts of all rows that were learned from, sorted."""
    return sorted(row[0] for rows in rows_by_step(ran).values() for row in rows)


def version_runs(ran: Ran) -> list[list[list[int]]]:
    """The weight versions of rows that several have sampled."""
    files = (ran.folder / "rollouts").glob("rank*.jsonl")
    rows = (json.loads(line) for file in files for line in file.read_text().splitlines())
    return [row["weight_version"] for row in rows if isinstance(row["weight_version"], list)]


# Six rows at once, so that generation of a step takes long enough for weights to come while rows are under way.
STALE = (*APART, "trainer.schedule=async", "trainer.max_staleness=2", "rollout.max_concurrent_rows=6")
LONG = ("trainer.steps=6", "trainer.save_every=1", "trainer.keep_best=")


def assert_paced(ran: Ran, prompts: list[str]) -> None:
    """Every prompt is learned from in one step, none of its tokens beyond the bound."""
    assert ran.status == 0, ran.output
    assert trained_prompts(ran) == prompts
    updates = ran.steps[-1]["actor/updates"]
    assert all(step["rollout/version_lag_max"] <= 2 * updates for step in ran.steps)


def test_async_killed_and_resumed_and_its_ranks_lost_loses_nothing_and_doubles_nothing(
    place: Path, launch: Launch, warm: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forks: dict[str, str]
) -> None:
    """The driver is killed in a step; then a rank that generates is, and one that learns."""
    sync = launch("train", "six_steps", *APART, *LONG)
    process, mark = start_marked(["train", *SMALL, "run.name=stale", *STALE, *LONG, FAULTS], place, **forks)
    wait_until_saved(process, place / "runs/stale", 2)
    kill_driver(process, mark)
    monkeypatch.setenv(FAULT, "rollout.advance_rollouts:9:0:SIGKILL,actor.update_actor:3:0:SIGKILL")
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    resumed = launch("train", "stale", *STALE, *LONG, FAULTS)
    assert "resuming from step " in resumed.output
    assert_paced(resumed, trained_prompts(sync))
    assert len(resumed.events("recovery")) == 2
    assert max(step["rollout/version_lag_max"] for step in resumed.steps) > 0


@pytest.mark.parametrize("parallel", ["tensor=2", "data"])
def test_async_on_two_ranks_that_generate(parallel: str, launch: Launch, warm: Ran) -> None:
    """Of one replica, or of two; rows go on over updates of the weights."""
    pools = ("placement.pools.train=1", "actor.parallel.tensor=1", "placement.pools.rollout=2", "trainer.keep_best=")
    tensor = 2 if parallel == "tensor=2" else 1
    pools = (*pools, f"rollout.parallel.tensor={tensor}", "trainer.steps=5")
    sync = launch("train", f"sync_{tensor}", *APART, *pools)
    at_once = 3 if tensor == 2 else 1  # of a replica: fewer where there are two, so that weights find rows under way
    ran = launch("train", f"async_{tensor}", *STALE, *pools, f"rollout.max_concurrent_rows={at_once}")
    assert_paced(ran, trained_prompts(sync))
    assert version_runs(ran), "no row went on over an update: this shows nothing"


def test_one_step_off_learns_from_the_prompts_of_sync_also_where_it_was_resumed(apart: Ran, launch: Launch) -> None:
    """Its first step's rows are sync's; later ones are sampled with the weights of the step before."""
    for steps in (2, 3):
        settings = (*APART, "trainer.schedule=one_step_off", f"trainer.steps={steps}", "trainer.save_every=1")
        ran = launch("train", "one_step_off", *settings)
        assert ran.status == 0, ran.output
    one_step_off, sync = rows_by_step(ran), rows_by_step(apart)
    assert one_step_off[0] == sync[0]
    assert one_step_off[1] != sync[1]
    prompts = [{step: [row[0] for row in rows] for step, rows in found.items()} for found in (one_step_off, sync)]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 3
    lags = [step["rollout/version_lag_max"] for step in ran.steps]
    assert lags[0] == 0 and lags[1] > 0, "the weights that sampled the second step's rows had learned from nothing"
    assert lags[2] == 0, "what was begun ahead of a resume is generated anew, with the newest weights"
    assert [step["rollout/rows"] for step in ran.steps] == [step["rollout/rows"] for step in apart.steps]
    assert ran.traces == apart.traces and "rollout.generate_sequences" in ran.traced("step-1-rollout-0")


def test_stream_samples_the_rows_of_a_step_with_its_first_weights(apart: Ran, launch: Launch) -> None:
    """Its prompts are sync's, and so are its first step's rows; later steps have learned from other minibatches."""
    ran = launch("train", "stream", *APART, "trainer.schedule=stream", "algorithm.minibatches=4")
    assert ran.status == 0, ran.output
    stream, sync = rows_by_step(ran), rows_by_step(apart)
    assert stream[0] == sync[0]
    prompts = [{step: [row[0] for row in rows] for step, rows in found.items()} for found in (stream, sync)]
    assert prompts[0] == prompts[1] and len(prompts[0]) == 3
    assert [step["actor/updates"] for step in ran.steps] == [4.0] * 3
    assert [step["rollout/version_lag_max"] for step in ran.steps] == [3.0] * 3
    assert ran.traces == apart.traces and "rollout.advance_rollouts" in ran.traced("step-1-rollout-0")
    pools = {"controller": ["steps"], "pool rollout": ["rank 0"], "pool train": ["rank 0", "rank 1"]}
    assert ran.tracks == pools and ran.timeline
    for name in ("rollout/rows", "rollout/kept_rows"):
        assert [step[name] for step in ran.steps] == [step[name] for step in apart.steps]
    files = (ran.folder / "rollouts").glob("rank*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {(row["step"], row["weight_version"]) for row in rows} == {(0, 0), (1, 4), (2, 8)}


def test_stream_of_one_minibatch_leaves_the_bits_of_sync(launch: Launch, warm: Ran) -> None:
    """The rows of its only part are those of the step, scored before anything has been learned."""
    settings = (*APART, "algorithm.minibatches=1", "trainer.steps=2", "trainer.save_every=2")
    sync = launch("train", "sync_whole", *settings)
    assert_alike(launch("train", "stream_whole", *settings, "trainer.schedule=stream"), sync)
