"""Rows of a report: whole groups, of steps that are spread over the run."""

from __future__ import annotations

import json
from pathlib import Path

from hybridflow.observe.report.rollouts import MAX_TEXT, rollouts
from hybridflow.observe.run_records import read_records
from tests.observe.report.synthetic_run import built


def test_all_rows_where_there_is_room(tmp_path: Path) -> None:
    shown = rollouts(built(tmp_path / "mine", tokens=2), 10**6)
    assert shown is not None
    assert (shown["all_rows"], shown["all_steps"], len(shown["groups"])) == (32, 4, 8)
    group = shown["groups"][0]
    assert (group["step"], group["group"], group["prompt"], group["answer"]) == (0, "0", "0+0=", "12")
    row = group["rows"][1]
    assert (row["response"], row["rewards"], row["more"]["finish_reason"]) == ("13", 1, "end")
    assert row["tokens"]["text"] == ["1", "3"] and len(row["tokens"]["advantages"]) == 2
    assert "prompt" not in row and "tokens" not in shown["groups"][1]["rows"][0]


def test_where_there_is_little_room_steps_are_spread_and_groups_are_whole(tmp_path: Path) -> None:
    run = built(tmp_path / "mine", steps=100, rows_every=5)
    shown = rollouts(run, 6 * 4 * 310)
    assert shown is not None and {len(group["rows"]) for group in shown["groups"]} == {4}
    steps = [group["step"] for group in shown["groups"]]
    assert steps[0] == 0 and steps[-1] == 95 and len(set(steps)) == len(steps) < 20 and shown["all_steps"] == 20
    one = rollouts(run, 0)
    assert one is not None and [group["step"] for group in one["groups"]] == [0], "one group, however long it is"


def test_rows_of_every_kind(tmp_path: Path) -> None:
    """Without group or reward, with a pair's other answer, with what JSON nests, without text, and half of a line."""
    run = built(tmp_path / "mine", steps=1, rows_every=1, groups=0)
    rows = [
        {"step": 0, "prompt": "a", "response": "b", "rejected": "c"},
        {"step": 0, "prompt": "x" * 9 * MAX_TEXT, "response": 3, "rewards": None, "metadata": {"level": [1]}},
        {"step": 1, "by_token": {"text": ["a"], "advantages": [0.5], "odd": 3}},
        {"step": 1, "by_token": "mine"},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    (run.path / "rollouts/rank0.jsonl").write_text(f'{text}\n[3]\n{{"step": 2, "resp')
    shown = rollouts(read_records(run.path), 10**6)
    assert shown is not None and [len(group["rows"]) for group in shown["groups"]] == [1, 1, 1, 1]
    first, second, third, fourth = (group["rows"][0] for group in shown["groups"])
    assert first["rejected"] == "c" and second["response"] == "3" and second["rewards"] is None
    assert second["more"] == {"metadata": '{"level": [1]}'} and len(shown["groups"][1]["prompt"]) < MAX_TEXT + 100
    assert third["tokens"] == {"text": ["a"], "advantages": [0.5]} and "tokens" not in fourth


def test_a_token_of_any_length_takes_little_room(tmp_path: Path) -> None:
    run = built(tmp_path / "mine", steps=1, rows_every=1, groups=0)
    row = {"step": 0, "response": "a", "by_token": {"text": ["a", "b" * 10**6], "advantages": [0.5, 1]}}
    (run.path / "rollouts/rank0.jsonl").write_text(json.dumps(row))
    shown = rollouts(read_records(run.path), 10**6)
    assert shown is not None
    first, second = shown["groups"][0]["rows"][0]["tokens"]["text"]
    assert first == "a" and second.startswith("bb") and len(second) < 300


def test_no_rows_are_none(tmp_path: Path) -> None:
    assert rollouts(built(tmp_path / "mine", groups=0), 10**6) is None
