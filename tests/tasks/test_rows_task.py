"""Task `rows`: files of the user's own as examples, whatever they are written in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.errors import ConfigError
from hybridflow.tasks import build
from hybridflow.tasks.rows_task import RowsTask

TOKENIZER = any_text_tokenizer()
GSM8K = [
    {"question": f"What is {n}+{n}?", "answer": f"It is twice {n}.\n#### {2 * n}", "level": n % 3} for n in range(40)
]


def write_lines(file: Path, rows: Sequence[Any], *, start: str = "", end: str = "\n") -> Path:
    file.write_bytes((start + "".join(json.dumps(row) + end for row in rows)).encode())
    return file


def build_rows(path: Path | str | Sequence[str], **options: Any) -> RowsTask:
    task = build("rows", TOKENIZER, {"path": str(path) if isinstance(path, Path) else path, **options})
    assert isinstance(task, RowsTask)
    return task


def test_gsm8k_rows_are_graded_by_their_answer_and_taught_their_solution(tmp_path: Path) -> None:
    task = build_rows(write_lines(tmp_path / "data.jsonl", GSM8K), held_out_fraction=0.1)
    example = task.example("train", 0)
    number = next(n for n in range(40) if f"What is {n}+{n}?" == example.prompt)
    assert example.answer == str(2 * number) and example.metadata == {"level": number % 3}
    [response] = task.supervised("warmup", [0]).ragged("response_ids")
    assert TOKENIZER.decode(response[:-1]) == GSM8K[number]["answer"]


def test_all_rows_are_in_one_of_the_two_splits_and_warmup_is_all_of_train(tmp_path: Path) -> None:
    task = build_rows(write_lines(tmp_path / "data.jsonl", GSM8K), held_out_fraction=0.3)
    asked = {split: [task.example(split, i).prompt for i in range(task.size(split))] for split in ("train", "held_out")}
    assert sorted(asked["train"] + asked["held_out"]) == sorted(row["question"] for row in GSM8K)
    assert asked["train"] and asked["held_out"] and task.size("warmup") == task.size("train")


def test_a_path_that_is_not_there_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.options: path: there is no file or folder .*absent.jsonl"):
        build_rows(tmp_path / "absent.jsonl")
