"""Trials of a machine: what a run needs is started, and what does not start is named."""

from __future__ import annotations

import pytest

from hybridflow.preflight.finding import Status
from hybridflow.trainer import machine_trial


@pytest.mark.processes
def test_a_library_that_cannot_be_imported_is_named() -> None:
    found = machine_trial.imported("vLLM", "hybridflow.no_such_engine")
    assert found.status is Status.bad and "No module named 'hybridflow.no_such_engine'" in found.found
    assert machine_trial.imported("json", "json").status is Status.ok


def test_a_cluster_that_does_not_start_is_told_by_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/no/such/folder")
    found = machine_trial._met()
    assert found.status is Status.bad and found.found.startswith("RAY_TMPDIR: '/no/such/folder' is no folder")


@pytest.mark.slow
@pytest.mark.ranks
def test_everything_starts_here() -> None:
    said: list[str] = []
    found = [*machine_trial.trials(said.append)]
    assert [one.subject for one in found] == ["vLLM", "Megatron", "Ray"] and len(said) == 2
    assert not [one for one in found if one.status is not Status.ok]
