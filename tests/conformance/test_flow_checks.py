"""Two steps on ranks: each planted mistake is told by the name of what makes it."""

from __future__ import annotations

import os
import subprocess

import pytest

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
