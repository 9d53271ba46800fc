"""Metadata, messages and source of a row: columns of `Task.rows` where there is something in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.errors import DataError
from hybridflow.tasks import Example, Task

PLAIN = ("prompt_ids", "answer", "sample_id")


class Told(Task):
    """Rows as given."""

    grader = "exact"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *examples: Example) -> None:
        super().__init__(tokenizer)
        self.examples = examples

    def size(self, split: str) -> int:
        return len(self.examples)

    def example(self, split: str, index: int) -> Example:
        return self.examples[index]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return any_text_tokenizer()


def build_example(metadata: Mapping[str, Any] | None = None, source: str = "", prompt: Any = "1=") -> Example:
    return Example(prompt, "1", 0, metadata or {}, source)


def test_rows_that_carry_nothing_are_as_before(tokenizer: PreTrainedTokenizerFast) -> None:
    assert Told(tokenizer, build_example()).rows("train", [0]).columns == PLAIN


def test_metadata_and_a_chat_are_json_and_a_source_is_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [{"role": "user", "content": "é?"}]
    task = Told(tokenizer, build_example({"level": np.int64(3), "vector": np.array([1.5])}, "gsm8k", chat))
    rows = task.rows("train", [0])
    assert rows.columns == (*PLAIN, "metadata", "messages", "source")
    assert json.loads(rows["metadata"][0]) == {"level": 3, "vector": [1.5]}
    assert json.loads(rows["messages"][0]) == chat and rows["source"].tolist() == ["gsm8k"]
    assert task.supervised("train", [0]).columns[:6] == rows.columns


def test_a_row_without_any_has_an_empty_entry_beside_one_that_has(tokenizer: PreTrainedTokenizerFast) -> None:
    task = Told(tokenizer, build_example(), build_example({"a": None}, "x", [{"role": "user", "content": "?"}]))
    rows = task.rows("train", [0, 1])
    assert [rows[name][0] for name in ("metadata", "messages", "source")] == ["{}", "[]", ""]
    assert task.rows("train", [0]).columns == rows.columns == task.rows("train", []).columns


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"a": float("nan")}, "the metadata cannot be written as JSON: Out of range float"),
        ({"a": b"x"}, "the metadata cannot be written as JSON: .*of type bytes"),
        ("{}", "a mapping was expected"),
    ],
)
def test_metadata_that_json_cannot_say_names_its_row(
    metadata: Any, said: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=f"row 0 of split 'train': .*{said}"):
        Told(tokenizer, build_example(metadata)).rows("train", [0])


def test_a_source_that_is_no_text_names_its_row(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="row 0 of split 'train': the source is 3, of type int"):
        Told(tokenizer, build_example(source=3)).rows("train", [0])  # type: ignore[arg-type]
