"""What the page of a report is given: of several runs, of some that failed, of folders where something is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hybridflow.observe.report.document import MAX_EVENTS, document, flattened, names
from hybridflow.observe.run_records import read_records
from tests.observe.report.synthetic_run import CONFIG, build_run, built

FAILURE = {"time": "2026-11-30T10:20:00+00:00", "event": "failure", "step": 7, "kind": "infra", "error": "lost"}
ALARM = {"time": "2026-11-30T10:21:00+00:00", "event": "alarm", "name": "dead_reward", "step": 9, "first_step": 4,
         "seen": "0 in 5 steps", "cause": "nothing is right", "advice": "easier", "page": "docs/alarms.md"}  # fmt: skip


def test_a_run_is_there_with_all_that_it_has(tmp_path: Path) -> None:
    shown = document([built(tmp_path / "mine", events=[FAILURE, ALARM])])
    (run,) = shown["runs"]
    assert (run["label"], run["status"], run["attempts"]) == ("mine", "ended", 1)
    assert run["record"]["git"] == {"commit": "0123456789abcdef", "branch": "main", "dirty": True}
    assert run["command"] == "hybridflow train run.name=mine"
    assert len(run["metrics"]["steps"]) == 20 and run["validations"]["steps"] == [0, 20]
    assert run["timeline"]["kept"] == 4 and run["rollouts"]["all_rows"] == 32
    assert [event["event"] for event in run["events"]] == ["start", "failure", "alarm", "end"]
    assert ("dead_reward", 4, 9) in [(alarm["name"], alarm["first_step"], alarm["step"]) for alarm in run["alarms"]]
    assert shown["settings"]["trainer.metric_sinks"] == '["jsonl", "live"]' and run["settings"] == {}


def test_a_run_that_has_not_ended_has_the_numbers_of_its_newest_step(tmp_path: Path) -> None:
    run = built(tmp_path / "mine")
    run.record.update(steps=None, seconds=None, goodput=None, spent={})
    run.metrics.steps[-1].update({"timing_s/run/steps": 40.0, "timing_s/run/start": 10.0, "perf/goodput": 0.8})
    (shown,) = document([run])["runs"]
    told = {name: shown["record"][name] for name in ("steps", "seconds", "goodput", "spent")}
    assert told == {"steps": 20, "seconds": 50.0, "goodput": 0.8, "spent": {"steps": 40.0, "start": 10.0}}
    run.record.update(seconds=60.0)
    assert document([run])["runs"][0]["record"]["seconds"] == 60.0


def test_the_machine_and_its_folders_are_not_told(tmp_path: Path) -> None:
    run = built(tmp_path / "mine")
    assert run.record["host"] == "here" and run.record["folder"] == "/home/someone"
    shown = json.dumps(document([run]))
    assert "/home/someone" not in shown and '"here"' not in shown and str(tmp_path) not in shown


def test_settings_that_differ_are_each_runs_own(tmp_path: Path) -> None:
    other = CONFIG.replace("1.0e-06", "0.001").replace("seed: 1", "seed: 1, more: 2")
    shown = document([built(tmp_path / "a"), built(tmp_path / "b", config=other)])
    first, second = (run["settings"] for run in shown["runs"])
    assert first == {"run.name": "a", "actor.optimizer.lr": "1e-06"}
    assert second == {"run.name": "b", "actor.optimizer.lr": "0.001", "run.more": "2"}
    assert shown["settings"] == {"run.seed": "1", "trainer.steps": "20", "trainer.metric_sinks": '["jsonl", "live"]'}


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/runs/x/0", "/runs/y/0"], ["x/0", "y/0"]),
        (["/runs/mine", "/runs/mine/earlier-1"], ["mine", "mine/earlier-1"]),
        (["/runs/sweep/0", "/runs/sweep/1", "/runs/mine"], ["sweep/0", "sweep/1", "mine"]),
        (["/runs/sweep/0", "/other/sweep/0"], ["runs/sweep/0", "other/sweep/0"]),
        (["/a/b/mine", "/b/b/mine", "/b/b/yours"], ["a/b/mine", "b/b/mine", "b/b/yours"]),
    ],
)
def test_two_runs_of_one_name_are_told_apart(folders: list[str], labels: list[str]) -> None:
    assert names([Path(folder) for folder in folders]) == labels


@pytest.mark.parametrize(
    "missing", ["run.json", "events.jsonl", "metrics.jsonl", "rollouts/rank0.jsonl", "timeline.json"]
)
def test_what_is_missing_is_left_out(missing: str, tmp_path: Path) -> None:
    folder = build_run(tmp_path / "mine")
    (folder / missing).unlink()
    (run,) = document([read_records(folder)])["runs"]
    gone = {
        "events.jsonl": "events",
        "rollouts/rank0.jsonl": "rollouts",
        "timeline.json": "timeline",
    }
    if missing == "run.json":  # what metrics say is there
        assert {*run["record"]} == {"steps", "goodput"}
    else:
        assert not (run["metrics"]["steps"] if missing == "metrics.jsonl" else run[gone[missing]])


def test_an_unfinished_run_with_half_a_line_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "mine")
    for name in ("metrics.jsonl", "events.jsonl", "rollouts/rank0.jsonl", "timeline.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text[: len(text) * 2 // 3])
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running", "ended": None}))
    (run,) = document([read_records(folder)])["runs"]
    assert run["status"] == "killed", "nobody has its lock"
    assert 10 < len(run["metrics"]["steps"]) < 20 and run["rollouts"]["groups"] and run["timeline"]["steps"]


def test_failures_stay_where_events_are_many(tmp_path: Path) -> None:
    saves = [
        {"time": f"2026-11-30T10:{step % 60:02}:00+00:00", "event": "checkpoint", "step": step} for step in range(900)
    ]
    shown = document([built(tmp_path / "mine", events=[*saves, FAILURE])])["runs"][0]
    assert len(shown["events"]) == MAX_EVENTS and shown["all_events"] == 903
    assert [event["step"] for event in shown["events"] if event["event"] == "failure"] == [7]


def test_very_many_events_take_no_time(tmp_path: Path) -> None:
    saves = [{"time": "2026-11-30T10:00:00+00:00", "event": "checkpoint", "step": step} for step in range(50_000)]
    run = built(tmp_path / "mine", events=saves)
    began = time.process_time()
    assert len(document([run])["runs"][0]["events"]) == MAX_EVENTS
    assert time.process_time() - began < 10, "as the square of their number it would be a minute"


def test_edited_records_do_no_harm(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "mine")
    (folder / "run.json").write_text(
        '{"steps": "many", "spent": [1], "command": 3, "earlier": 2, "git": {"commit": {}}}'
    )
    (folder / "events.jsonl").write_text(
        '{"event": 3}\n{"event": "failure", "error": ["a"], "pools": {"a": {"b": 1}}}\n[]\n'
    )
    (folder / "config.yaml").write_text("[")
    (run,) = document([read_records(folder)])["runs"]
    assert (run["record"]["steps"], run["command"], run["attempts"]) == ("many", "", 1)
    assert (run["events"][0]["event"], run["events"][1]["error"], run["events"][1]["bad"]) == ("3", '["a"]', True)


def test_settings_are_told_by_their_whole_keys() -> None:
    assert dict(flattened({"a": {"b": None, "c": {}}, "d": [1, "x"], "e": True})) == {
        "a.b": "null",
        "a.c": "{}",
        "d": '[1, "x"]',
        "e": "true",
    }
