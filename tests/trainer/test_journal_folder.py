"""The driver's side of the rollout journal: which files ranks write, and how much of which they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow.config.schema import Config, RolloutConfig, RolloutRecovery
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.roles import roles
from hybridflow.roles.rollout import TrainingActorRole
from hybridflow.trainer.journal_folder import JournalFolder, told

DURABLE = replace(Config(), rollout=RolloutConfig(recovery=RolloutRecovery.durable))


class Group:
    """A role that notes what it is told, and says that it knows five rows wherever there are any."""

    def __init__(self, interface: type) -> None:
        self.interface = interface
        self.told: list[tuple[int, dict[str, int]]] = []

    def journal_rollouts(self, folder: str, number: int, earlier: Mapping[str, int]) -> Any:
        self.told.append((number, dict(earlier)))
        return SimpleNamespace(get=lambda: [5 * bool(earlier), 5 * bool(earlier)])


class Run:
    """The journal of a run of three roles, one of which samples."""

    def __init__(self, folder: Path, config: Config = DURABLE) -> None:
        self.actor = Group(TrainingActorRole)
        self.rollout = Group(roles.get("rollout"))
        self.said: list[str] = []
        groups = {"actor": self.actor, "rollout": self.rollout, "critic": Group(roles.get("critic"))}
        self.path = folder / "journal"
        self.journal = JournalFolder(config, RunFolder(folder), groups, self.said.append)

    def write(self, name: str, size: int) -> None:
        (self.path / name).write_bytes(bytes(size))


def test_only_who_samples_is_told_and_what_is_there_is_read_so_far(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.journal.begin()
    assert run.rollout.told == [(1, {})] and run.actor.told == [] and run.said == []
    assert run.path.stat().st_mode & 0o777 == 0o700
    run.write("000001-rollout-0.rows", 7)
    run.write("000001-rollout-1.rows", 9)
    run.journal.begin()
    assert run.rollout.told[1] == (2, {"000001-rollout-0.rows": 7, "000001-rollout-1.rows": 9})
    assert run.said[0].startswith("in the journal, sampled since the last checkpoint: 5 rows; ")


def test_what_is_saved_is_cleared_and_its_number_not_used_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.journal.begin()
    run.write("000001-rollout-0.rows", 7)
    run.journal.clear()
    assert run.rollout.told[1] == (2, {}) and list(run.path.iterdir()) == []
    run.journal.remove()
    assert not run.path.exists()


def test_a_file_of_somebody_else_is_no_journal(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.path.mkdir()
    run.write("notes.txt", 3)
    run.journal.begin()
    assert run.rollout.told == [(1, {})]
    run.journal.clear()
    assert [file.name for file in run.path.iterdir()] == ["notes.txt"]


def test_exact_has_none_and_removes_one(tmp_path: Path) -> None:
    run = Run(tmp_path, Config())
    run.journal.begin()
    run.journal.clear()
    assert run.rollout.told == [] and run.said == [] and not run.path.exists()
    run.path.mkdir()
    run.write("000001-rollout-0.rows", 7)
    run.journal.begin()
    assert run.rollout.told == [] and not run.path.exists()
    assert run.said == [f"rollout.recovery = exact: what was journaled in {run.path} is not used, and removed"]


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        ("reused_rows", "from the journal, as they had been sampled: 3 rows"),
        ("stale_rows", "in the journal, but sampled by other weights, settings or prompts (logs/ of ranks say how)"),
        ("unjournaled_rows", "warning: in no journal, as the disk takes no more: 3 rows"),
    ],
)
def test_what_became_of_rows_is_told(metric: str, line: str) -> None:
    assert [said[: len(line)] for said in told({f"rollout/{metric}": 3.0})] == [line]
    assert list(told({f"rollout/{metric}": 0.0})) == []


def test_a_folder_that_is_gone_or_none_any_more_is_told_in_a_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.journal.begin()
    run.path.rmdir()
    with pytest.raises(DiskError, match=rf"^No such file or directory: {run.path}$"):
        run.journal.clear()
    run.path.write_text("")
    with pytest.raises(DiskError, match=rf"^Not a directory: {run.path}$"):
        run.journal.clear()
