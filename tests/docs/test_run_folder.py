"""docs/run-folder.md names every entry of a run folder, and every key of its records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hybridflow.observe import run_folder, run_lock
from hybridflow.observe.run_folder import RunFolder
from hybridflow.trainer import run_record
from hybridflow.trainer.progress import Progress

DOC = (Path(__file__).parents[2] / "docs/run-folder.md").read_text(encoding="utf-8")
EVENT = re.compile(r"\.event\(\s*\"(\w+)\"")


@pytest.mark.parametrize("entry", [*run_folder.PARTS, run_lock.LOCK, "earlier-<n>"])
def test_every_entry_is_told(entry: str) -> None:
    assert f"`{entry}`" in DOC or f"`{entry}/`" in DOC


def test_every_key_of_the_record_is_told(tmp_path: Path) -> None:
    told = set(re.findall(r"`(\w+)`", DOC.partition("## run.json")[2].partition("## events.jsonl")[0]))
    record = run_record.begun(RunFolder(tmp_path), "mine", None) | run_record.outcome(Progress())
    assert set(record) <= told
    assert f"This page is of format {run_record.FORMAT}," in DOC


def test_every_event_is_told() -> None:
    package = Path(run_folder.__file__).parents[1]
    recorded = {name for file in package.rglob("*.py") for name in EVENT.findall(file.read_text(encoding="utf-8"))}
    table = DOC.partition("## events.jsonl")[2].partition("## At the end")[0]
    assert recorded == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert {"start", "end", "validation", "checkpoint", "sink"} <= recorded
