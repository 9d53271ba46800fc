"""Records of a run: what a folder has is read, whatever else is in it, and also while it is being written."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.errors import ConfigError
from hybridflow.observe import run_records
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import LOCK, locked
from hybridflow.observe.run_records import MetricHistory, find_run, read_records
from hybridflow.observe.timeline import CallSpan, Timeline

HALF = b'{"step": 7, "reward/me'


def step(number: int, reward: float = 0.0) -> dict[str, float]:
    return {"step": number, "reward/mean": reward}


def validation(steps: int) -> dict[str, float]:
    return {"step": steps, "validation/accuracy": 0.5}


def history(*lines: dict[str, float]) -> MetricHistory:
    metrics = MetricHistory()
    for line in lines:
        metrics.take(line)
    return metrics


def test_steps_and_validations_are_told_apart() -> None:
    metrics = history(validation(0), step(0), step(1), validation(2), step(2))
    assert [line["step"] for line in metrics.steps] == [0, 1, 2]
    assert [line["step"] for line in metrics.validations] == [0, 2]


def test_what_was_undone_is_gone() -> None:
    metrics = history(validation(0), step(0), step(1), validation(2), step(2, 0.1), step(1, 0.9))
    assert metrics.steps == [step(0), step(1, 0.9)] and metrics.validations == [validation(0)]
    metrics.take(validation(0))
    assert metrics.steps == [] and metrics.validations == [validation(0)]


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans())))
def test_each_step_is_there_once_and_in_order(taken: list[tuple[int, bool]]) -> None:
    metrics = history(*(validation(number) if validates else step(number) for number, validates in taken))
    for lines in (metrics.steps, metrics.validations):
        numbers = [line["step"] for line in lines]
        assert numbers == sorted(set(numbers))
    if taken:
        number, validates = taken[-1]
        assert (metrics.validations if validates else metrics.steps)[-1]["step"] == number


@pytest.mark.parametrize("number", [None, "1", True, 1.0, -1, 2**63, [1]])
def test_a_line_without_a_step_is_no_metrics(number: object) -> None:
    assert not MetricHistory().take({"step": number, "reward/mean": 1.0})


def test_a_run_folder_is_read_as_it_is_found(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    folder.write_config("trainer: {steps: 3}\nrun: {name: mine}\n")
    folder.log(step(0, float("nan")))
    folder.event("start", step=0)
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b"[1]\n\xff\n" + HALF)
    records = read_records(folder.path)
    assert records.metrics.steps == [{"step": 0, "reward/mean": None}]
    assert records.settings["trainer"] == {"steps": 3} and records.record == {} and records.name == "mine"
    assert [event["event"] for event in records.events] == ["start"]
    assert [*records.rows()] == [] and records.spans() == []


def test_settings_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    assert run_records.read_settings(tmp_path) == {}
    (tmp_path / "config.yaml").write_text("a: [")
    assert run_records.read_settings(tmp_path) == {}


def test_rows_of_steps_are_read_rank_by_rank(tmp_path: Path) -> None:
    for rank in (0, 2, 10):
        rows = [{"step": number, "response": f"{rank}"} for number in (0, 10)]
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / f"rank{rank}.jsonl").write_bytes(text.encode() + b"\n" + HALF)
    assert [row["response"] for row in run_records.read_rows(tmp_path, {10})] == ["0", "2", "10"]
    assert len([*run_records.read_rows(tmp_path)]) == 6


def test_the_newest_rows_are_those_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "rank0.jsonl"
    long = "x" * (run_records.TAIL_BYTES // 2)
    rows = [{"step": number, "response": long} for number in (0, 0, 10, 10, 10, 10)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + HALF.decode())
    assert [row["step"] for row in run_records.newest_rows(file)] == [10]
    assert run_records.newest_rows(tmp_path / "none.jsonl") == []


def test_spans_are_those_that_were_written(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    timeline = Timeline(file, 1, pytest.fail)
    timeline.begin_step(0, 100.0)
    spans = [
        CallSpan("main", 1, "actor", "update_actor", 0, 101.0, 0.5),
        CallSpan("away", 0, "x", "y.z", None, 102.0, 1),
    ]
    for span in spans:
        timeline.note(span)
    timeline.end_step(0, 100.0, 4.0)
    assert run_records.read_spans(file) == [CallSpan("", 0, "", "step 0", 0, 100.0, 4.0), *spans]
    file.write_bytes(file.read_bytes()[:-20])  # a process that was killed as it wrote
    assert run_records.read_spans(file) == [CallSpan("", 0, "", "step 0", 0, 100.0, 4.0), spans[0]]


def test_a_place_that_is_no_run_is_told_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: there is no such folder; give a run folder"):
        find_run(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"is no run folder \(it would have a config.yaml\)$"):
        find_run(tmp_path)
    for number in (10, 2):
        RunFolder(tmp_path / f"{number}").write_config("run: {}")
    with pytest.raises(ConfigError, match=rf"it has 2 inside, such as {tmp_path}/2$"):
        find_run(tmp_path)
    assert find_run(tmp_path / "2") == tmp_path / "2"


def test_how_a_run_is(tmp_path: Path) -> None:
    record = {"status": "running"}
    assert run_records.status_of(tmp_path, {}) == "unknown"
    assert run_records.status_of(tmp_path, record) == "killed"
    assert run_records.status_of(tmp_path, {"status": "ended"}) == "ended"
    with locked(tmp_path):
        assert run_records.status_of(tmp_path, record) == "running"
        assert run_records.status_of(tmp_path, {"status": "ended"}) == "starting"
        assert run_records.status_of(tmp_path, {**record, "process": os.getpid()}) == "running"
        assert run_records.status_of(tmp_path, {**record, "process": os.getpid() + 1}) == "starting"
    (tmp_path / LOCK).write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    assert run_records.status_of(tmp_path, record) == "killed"
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    assert run_records.status_of(tmp_path, record) == "running"


@pytest.mark.parametrize("value", [None, True, "1", float("nan"), float("inf"), 10**400, [1.0]])
def test_what_is_no_finite_number(value: object) -> None:
    assert run_records.finite(value) is None


def test_a_finite_number() -> None:
    assert run_records.finite(3) == 3.0 and run_records.finite(-0.5) == -0.5


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """Of a pipe that would never end."""
    for name in ("timeline.json", "rank0.jsonl"):
        os.mkfifo(tmp_path / name)
    assert run_records.read_spans(tmp_path / "timeline.json") == []
    assert run_records.newest_rows(tmp_path / "rank0.jsonl") == [] and [*run_records.read_rows(tmp_path)] == []
