"""Alarms of a run by its folder: each once, whether it was told as the run went on, or its metrics alone give it."""

from __future__ import annotations

from pathlib import Path

from hybridflow.observe.run_alarms import alarms_of_run
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_records import read_records


def told(name: str, step: int, first_step: int) -> dict[str, object]:
    return {"name": name, "step": step, "first_step": first_step, "seen": "?", "cause": "It is.", "page": "mine"}


def build_run(path: Path, steps: int) -> RunFolder:
    """A run whose policy loss was not finite in its third step."""
    folder = RunFolder(path)
    folder.write_config("run: {}")
    for step in range(steps):
        folder.log({"step": step, "reward/mean": 0.5, "actor/pg_loss": float("nan") if step == 2 else 0.1})
    return folder


def test_alarms_that_nobody_told_are_those_of_the_metrics(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 4)
    (alarm,) = alarms_of_run(read_records(folder.path))
    assert (alarm["event"], alarm["name"], alarm["step"]) == ("alarm", "non_finite", 2)
    assert {"first_step", "seen", "cause", "advice", "page"} <= {*alarm}


def test_of_a_run_that_tells_its_alarms_they_are_what_it_told(tmp_path: Path) -> None:
    """Its metrics need not be looked at again, which of a long run takes seconds."""
    folder = build_run(tmp_path / "run", 4)
    folder.event("start", step=0, alarms=["non_finite", "shouting"])
    assert alarms_of_run(read_records(folder.path)) == []
    folder.event("alarm", **told("shouting", 3, 1))
    assert [alarm["name"] for alarm in alarms_of_run(read_records(folder.path))] == ["shouting"]
    folder.event("start", step=2)
    names = [alarm["name"] for alarm in alarms_of_run(read_records(folder.path))]
    assert names == ["shouting", "non_finite"], "it went on in a version that told none"


def test_one_that_was_told_too_is_one(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 4)
    folder.event("alarm", **told("shouting", 3, 1))
    folder.event("alarm", **told("non_finite", 2, 2))
    alarms = alarms_of_run(read_records(folder.path))
    assert [(alarm["name"], alarm["step"], alarm["cause"]) for alarm in alarms] == [
        ("shouting", 3, "It is."),
        ("non_finite", 2, "It is."),
    ]


def test_what_was_told_of_steps_that_are_undone_is_none(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", 2)
    folder.event("alarm", **told("shouting", 3, 1))
    folder.event("alarm", name="edited", step=None)
    assert alarms_of_run(read_records(folder.path)) == []
