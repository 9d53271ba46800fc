"""Two steps on ranks: each planted mistake is told by the name of what makes it."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from typing import cast

import pytest

from hybridflow.config import Config
from hybridflow.conformance import expectations, flow_checks
from hybridflow.conformance.scenarios import Scenario
from hybridflow.conformance.shared_roles import SharedRoles
from tests.docs.blocks import ROOT
from tests.forked_ranks import command

TOLD = {
    "algorithm 'planted_column'": [
        "actor.update_actor wants columns that its rows do not have: 'advantages' is given by actor.compute_advantage"
    ],
    "algorithm 'planted_nan'": [
        "not finite: the column 'odd' has nan",
        "column missing: it declares 'even' among its columns, and its rows have none",
        "actor takes no optimizer step",
    ],
    "algorithm 'planted_nothing'": ["GivesNothing.step gave a NoneType; the rows that it made"],
    "algorithm 'planted_rows'": [
        "planted.compute_few failed on rank ",
        "the method was given ",  # 32 or 40 of the 72: a rank has whole groups
    ],
}


@pytest.mark.ranks
def test_each_mistake_is_told_by_name(forks: dict[str, str]) -> None:
    check = command("hybridflow", "check", "tests.conformance.planted", environment=forks)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **forks}
    done = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    for what, parts in TOLD.items():
        own = [line for line in lines if line.startswith(f"  wrong  {what}: ")]
        assert all(any(part in line for line in own) for part in parts), f"{what}: {own}\n{done.stdout}"
        assert len(own) == len(parts) or what == "algorithm 'planted_rows'"
    assert len([line for line in lines if "wrong" in line]) == 6 and "expectations that are not met: 6" in done.stdout


class EndlessRoles:
    """Roles of a flow whose step never returns."""

    def __init__(self) -> None:
        self.running = self.supervisor = self
        self.waited = 0

    def algorithm(self, config: Config) -> None:
        return None

    def step(self, algorithm: None, number: int) -> None:
        while True:
            pass

    def wait_all(self) -> None:
        self.waited += 1


def test_a_step_that_never_returns_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_checks, "STEPS_S", 0.05)
    shared = EndlessRoles()
    lines, ended = flow_checks.take_steps_of(cast(SharedRoles, shared), Scenario("algorithm 'mine'", Config()))
    assert not ended and shared.waited == 1
    assert len(lines) == 1 and lines[0].startswith("TimeoutError: it took longer than 0.05 s (" + __file__)


def test_a_part_that_never_returns_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectations, "TRIAL_S", 0.05)
    (line,) = expectations.violations(partial(EndlessRoles().step, None, 0))
    assert line.startswith("TimeoutError: it took longer than 0.05 s (" + __file__)
