"""Environment `graded`: one turn, which a grader grades. What a run without an environment does is this."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from hybridflow.environments.environment import Action, Environment, Observation, Question, environments
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import BoundGrader, bind
from hybridflow.tasks.sound_grades import one_each, sound_grade


@environments.register("graded")
class GradedTurn(Environment):
    """One turn; its reward is the grade that a registered grader gives it.

    Args:
        grader: its registered name.
        grader_options: what it takes.
    """

    def __init__(self, grader: str, grader_options: Mapping[str, Any] | None = None) -> None:
        self._grader = whole_grader(grader, grader_options)
        self._question = Question("")

    async def reset(self, question: Question) -> None:
        if self._grader.check_answer:
            self._grader.check_answer(question.answer)
        self._question = question

    async def step(self, action: Action) -> Observation:
        grade = await graded(self._grader, self._question, action)
        return Observation(reward=grade.value, done=True, metrics=grade.parts)


def whole_grader(name: str, options: Mapping[str, Any] | None) -> BoundGrader:
    """Bind a grader that gives a turn one number.

    Raises ValueError for one that gives values of tokens or steps, which would be lost; and as `bind`.
    """
    grader = bind(name, options)
    if grader.token_rewards:
        raise ValueError(
            f"grader {name!r} gives values of tokens or steps, and an environment a turn one reward: name it in "
            "reward.grader, or another here"
        )
    return grader


async def graded(grader: BoundGrader, question: Question, action: Action) -> Grade:
    """Grade a turn as though it were the whole response to the question. Raises ValueError for what is no grade."""
    row = GradedRow(
        action.text,
        question.answer,
        prompt=question.prompt,
        messages=question.messages,
        metadata=question.metadata,
        source=question.source,
        finish_reason=action.finish_reason,
        truncated=action.finish_reason == "length",
        raw_response=action.raw_text,
        response_tokens=action.tokens,
        sample_id=question.sample_id,
    )
    if grader.concurrent:
        given: Any = grader.grade_rows([row])
    else:  # it must not keep other conversations waiting
        given = await asyncio.to_thread(grader.grade_rows, [row])
    (grade,) = one_each(await given if inspect.isawaitable(given) else given, [row])
    return sound_grade(grader, row, grade)
