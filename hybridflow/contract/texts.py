"""Graders and tasks, tried without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hybridflow.contract.promise import BrokenPromiseError, expect
from hybridflow.tasks import SPLITS, Example, Task
from hybridflow.tasks.grades import number
from hybridflow.tasks.tokenizer import char_tokenizer

RESPONSES = ("", "12", "12 ", "the answer is 12.", "-1e9", "12\n13", "é漢")
ANSWERS = ("12", "yes")  # of a grader whose task is not known
SOME = 3
PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"


def try_grader(grade: Callable[[str, str], Any], answers: Sequence[str] = ANSWERS) -> None:
    """A finite number for any response, the same each time. It may refuse an answer that it cannot compare with."""
    refused = []
    for answer in answers:
        try:
            grade(answer, answer)
        except ValueError as error:
            refused.append(f"{answer!r} ({error})")
            continue
        for response in (*RESPONSES, answer):
            on = f"of {response!r} to {answer!r}: "
            given, again = (_number(on, grade(response, answer)) for _ in range(2))
            expect(again == given, f"{on}it gave {given} and then another grade")
    expect(
        len(refused) < len(answers),
        f"it refuses every answer that was tried, {refused[-1:]}; with its task in the same modules, that one's are",
    )


def _number(on: str, given: object) -> float:
    """A grade as a run takes it."""
    try:
        return number(given)
    except ValueError as error:
        raise BrokenPromiseError(f"{on}no grade: it gave {error}; one finite number was expected") from None


def answers_for(grader: str, tasks: Iterable[type[Task]]) -> Sequence[str]:
    """Some answers of the tasks that name this grader, if there are any."""
    own = [cls(char_tokenizer(PRINTABLE)) for cls in tasks if cls.grader == grader]
    return [task.example("train", index).answer for task in own for index in range(SOME)] or ANSWERS


def try_task(cls: type[Task]) -> None:
    """Three splits with examples that are the same each time; nothing of `held_out` is in `train`."""
    task = cls(char_tokenizer(PRINTABLE))
    known: dict[str, set[int]] = {}
    for split in SPLITS:
        size = task.size(split)
        expect(size > 0, f"size({split!r}) is {size}; each split needs a row")
        for index in {0, size // 2, size - 1}:
            on, given = f"example({split!r}, {index}): ", task.example(split, index)
            expect(isinstance(given, Example), f"{on}it gave a {type(given).__name__}; an Example was expected")
            expect(isinstance(given.answer, str), f"{on}the answer is a {type(given.answer).__name__}, not a text")
            expect(task.example(split, index) == given, f"{on}it gives another each time")
        known[split] = {task.example(split, index).sample_id for index in range(min(size, 1000))}
    shared = known["held_out"] & known["train"]
    expect(not shared, f"held_out shares questions with train: sample_id {min(shared, default=0)} is in both")
