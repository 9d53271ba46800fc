"""Graders and tasks: what they promise. Ours are in test_parts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from hybridflow.batch import Batch
from hybridflow.conformance.expectations import violations
from hybridflow.conformance.task_checks import ANSWERS, answers_for, try_grader, try_task
from hybridflow.tasks import Example, Grade, GradedRow, Task


def only_lists(response: str, answer: str) -> float:
    if not answer.startswith("["):
        raise ValueError("the answer is no list")
    return float(response == answer)


class Lists(Task):
    grader = "only_lists"
    splits: ClassVar = {"train": 0, "warmup": 0, "held_out": 100}

    def size(self, split: str) -> int:
        return 10

    def example(self, split: str, index: int) -> Example:
        number = self.splits[split] + index
        return Example(f"[{number}]", f"[{number}]", sample_id=number)


class Leaks(Lists):
    splits: ClassVar = {"train": 0, "warmup": 0, "held_out": 5}


class Forgets(Lists):
    count = itertools.count()

    def example(self, split: str, index: int) -> Example:
        return Example("", f"{next(self.count)}", sample_id=index)


@pytest.mark.parametrize(
    ("grade", "line"),
    [
        (lambda response, answer: None, "no grade: it gave None, of type NoneType; one finite number was expected"),
        (lambda response, answer: float("nan"), "no grade: it gave nan, which is no finite number in float32"),
        (lambda response, answer: random.random(), "and then another grade"),
        (lambda response, answer: 1.0 / len(response), "on the response '' (answer '12'): ZeroDivisionError"),
        (only_lists, "it refuses every answer that was tried"),
        (lambda response, answer: float(int(response) == 12), "on the response '' (answer '12'): ValueError: invalid"),
    ],
)
def test_a_mistake_in_a_grader_is_told(grade: Callable[[str, str], Any], line: str) -> None:
    (found,) = violations(lambda: try_grader(grade))
    assert line in found


def near(response: str, answer: str) -> float:
    """Takes numbers for answers, and says so by failing on others, whatever the response."""
    return 1.0 / (1 + abs(int(response) - int(answer))) if response.strip().isdigit() else 0.0


def test_answers_of_another_kind_may_be_refused_at_a_response() -> None:
    assert violations(lambda: try_grader(near)) == []
    assert "invalid literal for int() with base 10: 'yes'" in violations(lambda: try_grader(near, ["yes", "no"]))[0]


async def waits(row: GradedRow) -> Grade:
    return Grade(float(row.response == row.answer), {"length": len(row.raw_response)})


def uneven(rows: list[GradedRow]) -> list[float]:
    return [float(len(rows))] * len(rows)


def one_short(rows: list[GradedRow]) -> list[float]:
    return [1.0] * max(1, len(rows) - 1)


def needs_pattern(row: GradedRow, *, pattern: str) -> float:
    return float(pattern in row.response)


def values_of_tokens(row: GradedRow) -> Grade:
    return Grade(1.0, token_rewards=[0.5] * row.response_tokens)


def test_graders_of_all_kinds_are_tried() -> None:
    assert violations(lambda: try_grader(waits)) == []
    assert violations(lambda: try_grader(lambda rows: [1.0 for _ in rows], batched=True)) == []
    assert violations(lambda: try_grader(values_of_tokens, token_rewards=True)) == []
    for tried, line in [
        (lambda: try_grader(uneven, batched=True), "rows are graded otherwise together than each by itself"),
        (lambda: try_grader(one_short, batched=True), "it gave 6 grades for 7 rows; one for each was expected"),
        (lambda: try_grader(needs_pattern), "it needs options (pattern), and is tried without any"),
        (lambda: try_grader(values_of_tokens), "@graders.register('tried', token_rewards=True)"),
    ]:
        (found,) = violations(tried)
        assert line in found


def test_a_grader_is_tried_on_the_answers_of_its_task() -> None:
    assert answers_for("only_lists", [Lists]) == ["[0]", "[1]", "[2]"] and answers_for("other", [Lists]) == ANSWERS
    assert violations(lambda: try_grader(only_lists, answers_for("only_lists", [Lists]))) == []


def test_a_task_keeps_its_promises_or_is_told() -> None:
    assert violations(lambda: try_task(Lists)) == []
    (leaks,) = violations(lambda: try_task(Leaks))
    assert leaks == "held_out shares questions with train: sample_id [5] is in both"
    (forgets,) = violations(lambda: try_task(Forgets))
    assert forgets == "example('train', 0): it gives another each time"


class NeedsOption(Lists):
    def __init__(self, tokenizer: Any, path: str) -> None:
        super().__init__(tokenizer)


class HidesRows(Lists):
    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.rows = ["a", "b"]


class OneMessage(Lists):
    def example(self, split: str, index: int) -> Example:
        return Example({"role": "user", "content": "hi"}, "[1]", f"{split}/{index}")


class NoAnswer(Lists):
    def example(self, split: str, index: int) -> Example:
        return Example("hi", None, f"{split}/{index}")


class Uneven(Lists):
    def example(self, split: str, index: int) -> Example:
        return Example("hi", "[1]", (split, index))


class OwnRows(Lists):
    def rows(self, split: str, indices: Any) -> Batch:
        return super().rows(split, indices).select_columns(["prompt_ids", "sample_id"])


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (NeedsOption, "it needs options (path), and is tried without any: give each a default"),
        (HidesRows, "its attribute 'rows', a list, hides the method of that name; call it _rows"),
        (OneMessage, "row 0 of split 'train': the prompt is one message"),
        (NoAnswer, "row 0 of split 'train': the answer is None"),
        (Uneven, "row 0 of split 'train': the sample_id is ('train', 0), of type tuple"),
        (OwnRows, "rows('train', [0]): columns missing: answer; it has prompt_ids, sample_id"),
    ],
)
def test_what_a_run_cannot_take_is_told(task: type[Task], line: str) -> None:
    (found,) = violations(lambda: try_task(task))
    assert found.startswith(line)
    assert answers_for("only_lists", [NeedsOption]) == ANSWERS


class Named(Lists):
    """Chats in any language, with names for questions and numbers for answers."""

    def example(self, split: str, index: int) -> Example:
        return Example([{"role": "user", "content": "é漢"}], index, f"{split}/{index}" if index else -(2**70))


def test_names_of_any_size_numbers_and_chats_are_fine() -> None:
    class Apart(Named):
        def example(self, split: str, index: int) -> Example:
            return Example("é漢", index, f"{split}/{index}")

    assert violations(lambda: try_task(Apart)) == []
    (shared,) = violations(lambda: try_task(Named))
    assert "sample_id [-1180591620717411303424] is in both" in shared
