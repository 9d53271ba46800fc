"""The guessing game, and what graders make of its rewards."""

from __future__ import annotations

import asyncio

import pytest

from hybridflow.environments import Action, Question
from hybridflow.environments.environment import make, sound_observation
from hybridflow.tasks import Grade, GradedRow, build
from hybridflow.tasks.environment_graders import environment, environment_turns
from tests.tasks.chat_templates import build_chat_tokenizer


def test_a_guess_is_told_where_the_number_lies() -> None:
    game = make("guess", {"higher": "+"})

    async def play(*turns: str) -> list[tuple[str, float, bool]]:
        await game.reset(Question("", "42"))
        seen = [sound_observation(game, await game.step(Action(turn))) for turn in turns]
        return [(one.messages[0]["content"] if one.messages else "", one.reward, one.done) for one in seen]  # type: ignore[index]

    assert asyncio.run(play("is it 7?", "50", "hm", "40 or 42")) == [
        ("+", 0.0, False),
        ("lower", 0.0, False),
        ("a number, please", 0.0, False),
        ("", 1.0, True),
    ]


def test_its_task_asks_all_alike() -> None:
    task = build("guess", build_chat_tokenizer(None), {"highest": 3})
    rows = task.rows("held_out", range(task.size("held_out")))
    assert rows.dense("answer").tolist() == ["0", "1", "2", "3"]
    assert len({tuple(prompt.tolist()) for prompt in rows.ragged("prompt_ids")}) == 1


def test_rewards_are_graded_together_or_by_turns() -> None:
    row = GradedRow("5+6", "6", turn_rewards=[0.5, 0.0, 1.0], response_tokens=3)
    assert environment(row) == 1.5
    assert environment_turns(row) == Grade(1.0, token_rewards=[0.5, 0.0, 0.0])
    for grader in (environment, environment_turns):
        with pytest.raises(RuntimeError, match="the weather"):
            grader(GradedRow("5", "6", turn_rewards=[0.0], environment_failure="RuntimeError: the weather"))
        with pytest.raises(ValueError, match=r"set environment\.name"):
            grader(GradedRow("5", "6"))
