"""Whole runs whose learner lends its slots to generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fault_plugin import FAULT, MARK
from tests.trainer.conftest import APART, FAULTS, Launch, Ran
from tests.trainer.test_overlapping_runs import LONG, STALE, assert_paced, rows_by_step, trained_prompts, version_runs

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

LENT = (*APART, "placement.lend_idle_slots=true")
WEIGHTS = "model/model.safetensors"


def assert_same_rows_and_weights(lent: Ran, plain: Ran) -> None:
    assert lent.status == 0, lent.output
    assert rows_by_step(lent) == rows_by_step(plain) and len(rows_by_step(lent)) == 3
    assert (lent.folder / WEIGHTS).read_bytes() == (plain.folder / WEIGHTS).read_bytes()
    for name in ("rollout/rows", "rollout/version_lag_max", "actor/grad_norm", "reward/mean"):
        assert [step[name] for step in lent.steps] == [step[name] for step in plain.steps]


def test_sync_learns_from_the_rows_that_it_would_sample_on_one_pool(apart: Ran, launch: Launch) -> None:
    lent = launch("train", "lent", *LENT)
    assert "generates as 2 replicas" in lent.output
    assert_same_rows_and_weights(lent, apart)
    assert [one["validation/accuracy"] for one in lent.validations] == [
        one["validation/accuracy"] for one in apart.validations
    ]


def test_a_lent_rank_that_is_lost_while_it_generates_is_a_learners_loss(
    apart: Ran, launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(FAULT, "actor.generate_sequences:3:0:SIGKILL")
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    lent = launch("train", "lent_lost", *LENT, FAULTS, "trainer.save_every=1", "trainer.max_failures=2")
    assert [event["pools"] for event in lent.events("recovery")] == [["train"]]
    assert "back to step-00000" in lent.output
    assert_same_rows_and_weights(lent, apart)


def test_async_begins_rows_on_lent_slots_and_lets_them_rest_within_the_bound(launch: Launch, warm: Ran) -> None:
    sync = launch("train", "six_steps", *APART, *LONG)
    lent = launch(
        "train", "lent_async", *STALE, "placement.lend_idle_slots=true", "rollout.max_concurrent_rows=3", *LONG
    )
    assert_paced(lent, trained_prompts(sync))
    assert version_runs(lent), "no row went on over an update: this shows nothing"
