"""Graders and tasks, tried without a model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridflow.conformance.expectations import ExpectationError, describe_error, expect
from hybridflow.errors import DataError
from hybridflow.options import faults
from hybridflow.tasks import SPLITS, Example, Grade, GradedRow, Grader, Task
from hybridflow.tasks.grader_registry import BoundGrader, bound, options_shell
from hybridflow.tasks.sound_grades import UnsoundGradeError, one_each, sound_grade
from hybridflow.tasks.task import hidden_method
from hybridflow.tasks.tokenizer import EOS
from hybridflow.tasks.written_numbers import as_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RESPONSES = ("", "12", "12 ", "the answer is 12.", "-1e9", "12\n13", "é漢")
ANSWERS = ("12", "yes")  # of a grader whose task is not known
SOME = 3


def try_grader(
    grader: Grader, answers: Sequence[str] = ANSWERS, *, batched: bool = False, token_rewards: bool = False
) -> None:
    """Try a grader of any kind: a finite number for any response, the same each time. It may refuse an answer.

    A ValueError at an answer is a refusal of it, if there is one with which every response is graded.

    Args:
        batched, token_rewards: as it was registered.
    """
    needed = faults(options_shell(grader), {})
    expect(not needed, f"it needs options ({', '.join(needed)}), and is tried without any: give each a default")
    trial = bound("tried", grader, batched=batched, token_rewards=token_rewards)
    refused = []
    failed: list[ExpectationError] = []
    for answer in answers:
        try:
            if trial.check_answer:
                trial.check_answer(answer)
            _given(trial, [_row(answer, answer)])
        except ValueError as error:
            refused.append(f"{answer!r} ({error})")
            continue
        try:
            for response in (*RESPONSES, answer):
                _try_response(trial, response, answer)
        except ExpectationError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            failed.append(error)
            continue
        if batched:
            _try_batch(trial, answer)
    expect(
        len(refused) < len(answers),
        f"it refuses every answer that was tried, {refused[-1:]}; with its task in the same modules, that one's are",
    )
    if len(refused) + len(failed) == len(answers):
        raise failed[0]


def _try_response(trial: BoundGrader, response: str, answer: str) -> None:
    on = f"on the response {response!r} (answer {answer!r}): "
    row = _row(response, answer)
    try:
        first, again = (_numbers(on, trial, row) for _ in range(2))
    except ExpectationError:
        raise
    except (Exception, SystemExit) as error:
        raise ExpectationError(on + describe_error(error)) from error
    expect(again == first, f"{on}it gave {first[0]} and then another grade")


def _given(trial: BoundGrader, rows: Sequence[GradedRow]) -> Sequence[Any]:
    """Return what a grader gives for rows, whatever its kind. Raises what it raises."""
    given = trial.grade_rows(list(rows))
    return one_each(asyncio.run(_awaited(given)) if inspect.isawaitable(given) else given, rows)


async def _awaited(given: Awaitable[Any]) -> Any:
    return await given


def _all(grade: Grade) -> tuple[float, ...]:
    return (grade.value, *grade.parts.values(), *grade.token_rewards, *(value for _, value in grade.step_rewards))


def _try_batch(trial: BoundGrader, answer: str) -> None:
    """Expect of a batched grader one grade a row, in their order, the same as of each row alone; none for no rows."""
    rows = [_row(response, answer) for response in RESPONSES]
    alone = [_numbers("", trial, row) for row in rows]
    try:
        together = _given(trial, rows)
        _given(trial, [])
    except UnsoundGradeError as error:
        raise ExpectationError(str(error)) from None
    numbers = [_all(sound_grade(trial, row, given)) for row, given in zip(rows, together, strict=True)]
    expect(numbers == alone, f"rows are graded otherwise together than each by itself (answer {answer!r})")


def _row(response: str, answer: str) -> GradedRow:
    """Return a row with all that one can have."""
    chat = [{"role": "user", "content": "What is it?"}]
    return GradedRow(
        response, answer, "What is it?", chat, {"level": 1}, "tried", "end", False, f"{response}<|end|>",
        len(response) + 1, "tried/0",
    )  # fmt: skip


def _numbers(on: str, trial: BoundGrader, row: GradedRow) -> tuple[float, ...]:
    """Return the numbers of a grade, its value first, as a run takes them."""
    (given,) = _given(trial, [row])
    try:
        return _all(sound_grade(trial, row, given))
    except UnsoundGradeError as error:
        raise ExpectationError(f"{on}{error}") from None
    except ValueError as error:
        raise ExpectationError(f"{on}no grade: it gave {error}; one finite number was expected") from None


def answers_for(grader: str, tasks: Iterable[type[Task]]) -> Sequence[str]:
    """Return some answers of the tasks that name this grader, if there are any that can be made without options."""
    own = [cls(any_text_tokenizer()) for cls in tasks if cls.grader == grader and not faults(cls, {})]
    return [as_text(task.example("train", index).answer) for task in own for index in range(SOME)] or ANSWERS


def try_task(cls: type[Task]) -> None:
    """Expect three splits with rows that a run can take, the same each time; nothing of `held_out` is in `train`."""
    needed = faults(cls, {})
    expect(not needed, f"it needs options ({', '.join(needed)}), and is tried without any: give each a default")
    task = cls(any_text_tokenizer())
    hidden = hidden_method(task)
    expect(hidden is None, str(hidden))
    known: dict[str, set[int | str]] = {}
    for split in SPLITS:
        size = task.size(split)
        whole = isinstance(size, int | np.integer) and size > 0
        expect(whole, f"size({split!r}) is {size!r}; each split needs a row")
        for index in sorted({0, size // 2, size - 1}):
            on = f"example({split!r}, {index}): "
            example = task.example(split, index)
            expect(isinstance(example, Example), f"{on}it gave a {type(example).__name__}; an Example was expected")
            expect(task.example(split, index) == example, f"{on}it gives another each time")
            _try_row(task, split, index)
        known[split] = {task.example(split, index).sample_id for index in range(min(size, 1000))}
    shared = sorted(known["held_out"] & known["train"], key=str)
    expect(not shared, f"held_out shares questions with train: sample_id {shared[:1]} is in both")


def _try_row(task: Task, split: str, index: int) -> None:
    """Try a row as a run takes it: it can be expressed in tokens, and answered."""
    try:
        row = task.rows(split, [index])
    except DataError as error:
        raise ExpectationError(str(error)) from None
    on = f"rows({split!r}, [{index}]): "
    missing = {"prompt_ids", "answer"} - set(row.columns)
    expect(not missing, f"{on}columns missing: {', '.join(sorted(missing))}; it has {', '.join(row.columns) or 'none'}")
    expect(len(row) == 1, f"{on}it gave {len(row)} rows, and one was asked for")


def any_text_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with a token for every byte, so for any text, and a plain chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = (EOS, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    return fast
