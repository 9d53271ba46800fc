"""The live view: a step has one number, on the screen and in the files."""

from __future__ import annotations

import pytest

from hybridflow.observe.live_view import Live


def test_a_step_has_the_number_that_files_have(capsys: pytest.CaptureFixture[str]) -> None:
    Live(every_step=True).step(1, 3, {"reward/mean": 0.5, "perf/tokens_per_s": 10.0}, 2.0)
    assert capsys.readouterr().out == "step 0 (1/3 done) · reward 0.500 · 10 tokens/s · 2 s left\n"


def test_a_step_shows_costs_pairs_and_grades_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(every_step=True)
    live.step(1, 3, {"reward/mean": 0.5, "cost/mean": 0.25, "reward/failed_share": 0.0}, 2.0)
    live.step(2, 3, {"reward/mean": 0.5, "reward/failed_share": 0.125}, 1.0)
    live.step(3, 3, {"actor/dpo_loss": 0.6931, "actor/dpo_accuracy": 0.5}, 0.0)
    assert capsys.readouterr().out.splitlines() == [
        "step 0 (1/3 done) · reward 0.500 · cost 0.250 · 2 s left",
        "step 1 (2/3 done) · reward 0.500 · failed grades 12.5% · 1 s left",
        "step 2 (3/3 done) · loss 0.693 · accuracy 0.500 · 0 s left",
    ]
