"""docs/watch.md: its picture is that of the recorded run, and its line is one that a run prints."""

from __future__ import annotations

import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hybridflow.observe.live_view import step_line
from hybridflow.observe.run_records import read_records
from hybridflow.observe.run_state import RunState

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "docs/images/live.py"))


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def words(svg: str) -> str:
    return " ".join("".join(ElementTree.fromstring(svg).itertext()).split("}")[-1].split())


def test_the_picture_is_that_of_the_run() -> None:
    kept = (ROOT / "docs/images/live.svg").read_text(encoding="utf-8")
    drawn = SCRIPT["picture"]()
    assert "steps" in words(kept) and words(drawn) == words(kept), "out of date: TZ=UTC python docs/images/live.py"
    assert "http" not in kept.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")


def test_the_line_is_one_of_the_run() -> None:
    state = RunState("addition", read_records(SCRIPT["RUN"]).settings["trainer"]["steps"])
    lines = set()
    for line in read_records(SCRIPT["RUN"]).metrics.steps:
        state.take_metrics(line, 0.0)
        lines.add(step_line(state))
    told = (ROOT / "docs/watch.md").read_text(encoding="utf-8").split("```text\n")[1].split("\n")[0]
    assert told[15:] in lines
