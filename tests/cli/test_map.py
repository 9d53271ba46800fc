"""`hybridflow map`: what it writes is what `hybridflow train` takes and `hybridflow plan` shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow.cli import main, map_text
from hybridflow.cli import map as map_command
from hybridflow.cli.plan import composed
from hybridflow.errors import ConfigError
from hybridflow.planning.estimates import Spread, StepEstimate
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.search.device_mapping import MappedRun, map_devices
from hybridflow.planning.spec_of_config import spec_of

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


def test_devices_are_enough_where_the_settings_have_no_placement_that_could_be_run(told: Any) -> None:
    text = told("map", "hardware=h100_80g_8x", "--devices", "4", "--schedules", "sync", "placement.pools.main=3")
    assert "the placement in the settings is none that could be run; hybridflow plan says why" in text
    assert "--out FILE writes it" in text


def peak(run: MappedRun) -> float:
    return max(slot.peak for slot in run.memory)


def test_what_a_slot_has_no_memory_for_is_passed_over(workplace: Path) -> None:
    asked = map_command._asked([*ADDITION, "hardware=cpu", "--devices", "3", "--schedules", "sync"])
    cpu = read_hardware("cpu")
    found = map_devices(spec_of(composed(asked.run).to_config()), cpu, 3)
    fullest_first = sorted(found.runs, key=peak, reverse=True)
    found = replace(found, runs=tuple(fullest_first))
    assert map_command._accepted(found, asked, cpu)[0].best == fullest_first[0]
    memory = (peak(fullest_first[0]) + peak(fullest_first[-1])) / 2
    fitting = next(run for run in fullest_first if peak(run) <= memory)
    assert map_command._accepted(found, asked, replace(cpu, memory_bytes=memory))[0].best == fitting != fullest_first[0]
    with pytest.raises(ConfigError, match=r"placement\.pools\.\w+: .* are needed of .* of a slot"):
        map_command._accepted(found, asked, replace(cpu, memory_bytes=peak(fullest_first[-1]) / 2))


def step(**seconds: float) -> StepEstimate:
    """A step with these calls, `.` written as `__`."""
    phases = {name.replace("__", "."): Spread(taken, taken, taken) for name, taken in seconds.items()}
    return StepEstimate(Spread(2.0, 2.0, 2.0), phases, (), {"main": 0.0, "rollout": 1e-9}, 1.0)


def test_what_loses_is_told_by_calls_that_are_the_same_and_as_far_as_it_matters() -> None:
    best: Any = SimpleNamespace(step=step(actor__generate_sequences=1.0, sync_weights=0.5))
    slower: Any = SimpleNamespace(step=step(actor__generate_sequences=1.25, sync_weights=0.5 + 1e-14))
    assert map_text._losses(slower, best) == ["actor.generate_sequences +250 ms"]
    assert map_text._losses(best, slower) == ["as fast, and found later"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schedules", "later"), "there is no such schedule; there is sync, one_step_off, async, stream"),
        (("--schedules", "stream"), "cannot learn from in parts"),
        (("--devices", "-1"), "--devices: -1 given, at least 1 and at most 65536 expected"),
        (("--devices", "1000000"), "at most 65536 expected"),
        (("--out", "placement"), "--out placement: a placement's name ends in .yaml"),
        (("--out", "none/placement.yaml"), "none does not exist"),
        (("--out", "mine.yaml"), "--out mine.yaml is there already; give another name, or --force to replace it"),
        (("hardware=none",), "nothing is named 'none'"),
        (("placement.device=gpu",), "hardware: must be given for GPUs"),
    ],
)
def test_what_cannot_be_searched(
    arguments: tuple[str, ...], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text("mine: 1")
    assert main(["map", *ADDITION, "ray.address=auto", *arguments]) == 2
    assert message in capsys.readouterr().err
