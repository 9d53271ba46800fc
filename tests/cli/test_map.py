"""`hybridflow map`: what it writes is what `hybridflow train` takes and `hybridflow plan` shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridflow.cli import main

ADDITION = ("experiment=addition", "actor.model.path=model", "run.root=runs", "algorithm.prompts_per_step=8")


@pytest.fixture
def told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a subcommand on the addition experiment, which must succeed; what it prints."""

    def ask(*arguments: str) -> str:
        subcommand, *others = arguments
        assert main([subcommand, *ADDITION, *others]) == 0
        return capsys.readouterr().out

    return ask


def test_train_takes_what_it_writes_and_plan_predicts_the_same(told: Any, ran: Any) -> None:
    asked = ("hardware=cpu", "--devices", "3", "--schedules", "one_step_off", "--bound")
    found = json.loads(told("map", *asked, "--out", "found.yaml", "--json"))
    best = found["runs"][0]
    assert found["gap"] < 1e-6
    assert all(pool["peak"] <= pool["device"] for run in found["runs"] for pool in run["memory"].values())
    plan = json.loads(told("plan", "hardware=cpu", "placement=found.yaml", "--json"))
    assert plan["step"]["seconds"]["mean"] == pytest.approx(best["step"]["seconds"]["mean"])
    pools = found["settings"]["placement"]["pools"]
    assert {name: pool["slots"] for name, pool in plan["pools"].items()} == pools
    told("train", "placement=found.yaml", "trainer.steps=2")
    (config,) = ran
    assert (config.trainer.schedule, config.placement.pools) == (best["schedule"], pools)
    for role in ("actor", "critic", "reference"):
        own = found["settings"][role]
        assert getattr(config, role).parallel.tensor == own["parallel"]["tensor"]
        assert getattr(config, role).max_tokens_per_rank == own["max_tokens_per_rank"]


def test_it_says_what_loses_and_by_what(told: Any) -> None:
    text = told("map", "hardware=h100_80g_8x", "--devices", "4", "--schedules", "sync")
    assert "hybridflow map: 4 devices of h100_80g_8x" in text and "--out FILE" in text
    assert "schedule sync: rows are sampled with the weights that a step begins with" in text
    losers = text.partition("runners-up\n")[2].splitlines()
    assert losers[0].startswith("  +") and "sync" in losers[0] and "%" in losers[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schedules", "later"), "there is no such schedule; there is sync, one_step_off, async, stream"),
        (("--schedules", "stream"), "cannot learn from in parts"),
        (("--devices", "-1"), "at least 1 was expected"),
        (("hardware=none",), "nothing is named 'none'"),
        (("placement.device=gpu",), "hardware: must be given for GPUs"),
    ],
)
def test_what_cannot_be_searched(
    arguments: tuple[str, ...], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["map", *ADDITION, "ray.address=auto", *arguments]) == 2
    assert message in capsys.readouterr().err
