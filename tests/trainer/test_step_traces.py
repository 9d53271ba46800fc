"""Which steps ranks are asked to record, and what becomes of a step that a failure has interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridflow.observe.disk_errors import DiskError
from hybridflow.trainer.step_traces import StepTraces


class Pool:
    """A pool that notes what its ranks are asked for; one of them may have no room."""

    def __init__(self, name: str, calls: list[str], *found: object) -> None:
        self._name = name
        self._calls = calls
        self._found = list(found)

    def start_traces(self) -> None:
        self._calls.append(f"{self._name} starts")

    def write_traces(self, prefix: str) -> list[Any]:
        self._calls.append(f"{self._name} writes {prefix}")
        return self._found if prefix else []


def build_traces(calls: list[str], said: list[str], *steps: int, taken: int = 0, folder: str = "here") -> StepTraces:
    pools: Any = {
        "train": Pool("train", calls, None, DiskError("No space left on device: there")),
        "own": Pool("own", calls),
    }
    return StepTraces(steps, taken, Path(folder), pools, said.append)


def test_all_pools_record_the_steps_that_are_named_and_a_full_disk_is_told() -> None:
    calls: list[str] = []
    said: list[str] = []
    traces = build_traces(calls, said, 1, 2)
    for step in range(4):
        traces.begin_step(step)
        calls.append(f"step {step}")
        traces.end_step(step)
    assert calls == [
        "step 0",
        *("train starts", "own starts", "step 1", "train writes here/step-1-train-", "own writes here/step-1-own-"),
        *("train starts", "own starts", "step 2", "train writes here/step-2-train-", "own writes here/step-2-own-"),
        "step 3",
    ]
    assert said == ["warning: No space left on device: there: there is no trace of it"] * 2


@pytest.mark.parametrize("again", [1, 0])
def test_a_step_that_is_made_again_begins_anew_and_an_earlier_one_lets_go_of_it(again: int) -> None:
    calls: list[str] = []
    traces = build_traces(calls, [], 1)
    traces.begin_step(1)
    calls.clear()
    for step in range(again, 2):
        traces.begin_step(step)
        traces.end_step(step)
    dropped = [] if again else ["train writes ", "own writes "]
    starts = ["train starts", "own starts"]
    assert calls == [*dropped, *starts, "train writes here/step-1-train-", "own writes here/step-1-own-"]


def test_a_resumed_run_tells_of_steps_that_are_over_unless_their_traces_are_there(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "step-1-main-0.json.gz").touch()
    build_traces([], said, 0, 1, 5, taken=5, folder=str(tmp_path))
    assert said == ["trainer.profile_steps: there is no trace of step 0, as it was taken before"]
