"""Graders and tasks: what they promise. Ours are in test_parts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from hybridflow.contract.promise import broken
from hybridflow.contract.texts import ANSWERS, answers_for, try_grader, try_task
from hybridflow.tasks import Example, Task


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
        (lambda response, answer: 1.0 / len(response), "ZeroDivisionError"),
        (only_lists, "it refuses every answer that was tried"),
    ],
)
def test_a_mistake_in_a_grader_is_told(grade: Callable[[str, str], Any], line: str) -> None:
    (found,) = broken(lambda: try_grader(grade))
    assert line in found


def test_a_grader_is_tried_on_the_answers_of_its_task() -> None:
    assert answers_for("only_lists", [Lists]) == ["[0]", "[1]", "[2]"] and answers_for("other", [Lists]) == ANSWERS
    assert broken(lambda: try_grader(only_lists, answers_for("only_lists", [Lists]))) == []


def test_a_task_keeps_its_promises_or_is_told() -> None:
    assert broken(lambda: try_task(Lists)) == []
    (leaks,) = broken(lambda: try_task(Leaks))
    assert leaks == "held_out shares questions with train: sample_id 5 is in both"
    (forgets,) = broken(lambda: try_task(Forgets))
    assert forgets == "example('train', 0): it gives another each time"
