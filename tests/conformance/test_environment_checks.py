"""Environments as `hybridflow check` tries them: each planted mistake is told."""

from __future__ import annotations

import random
import re
from typing import ClassVar

import pytest

from hybridflow.conformance.environment_checks import try_environment, try_tool
from hybridflow.conformance.expectations import violations
from hybridflow.environments import Action, Environment, Observation, Question
from hybridflow.environments.tools import Calculator, Python, Tool


class Sound(Environment):
    """Go on until something is said."""

    async def reset(self, question: Question) -> None:
        if question.answer == "yes":
            raise ValueError("numbers only")
        self.dice = random.Random(question.seed)

    async def step(self, action: Action) -> Observation:
        return Observation("go on", self.dice.random(), bool(action.text))


class Plain(Sound):
    """The same by a plain function."""

    def step(self, action: Action) -> Observation:  # type: ignore[override]
        return Observation("go on", 1, action.text == "12")


class Dicing(Sound):
    async def step(self, action: Action) -> Observation:
        return Observation("go on", random.random())


class Silent(Sound):
    async def step(self, action: Action) -> Observation:
        return Observation()


class Breaking(Sound):
    async def step(self, action: Action) -> Observation:
        return Observation(reward=float(action.text), done=True)


class Choosy(Sound):
    async def reset(self, question: Question) -> None:
        raise ValueError("not that")


class Early(Sound):
    async def reset(self, question: Question) -> Observation:  # type: ignore[override]
        return Observation("a first word")


class Needy(Sound):
    def __init__(self, level: int) -> None:
        self.level = level


TOLD: list[tuple[type[Environment], str]] = [
    (Dicing, r"on turn 0 \(seed 7\) it gave Observation.* and then Observation"),
    (Silent, r"on turn 0, '': ValueError: step gave an Observation without messages"),
    (Breaking, r"on turn 0, '': ValueError: could not convert string to float.*test_environment_checks\.py:\d+"),
    (Choosy, "it refuses every question that was tried: .*not that"),
    (Early, r"reset gave Observation.*a first word.*, of type Observation, which the policy would never see"),
    (Needy, r"it needs options \(level\)"),
]


@pytest.mark.parametrize("kind", [Sound, Plain])
def test_sound_ones_are(kind: type[Environment]) -> None:
    assert violations(lambda: try_environment(kind)) == []


@pytest.mark.parametrize(("kind", "told"), TOLD)
def test_a_mistake_is_told_in_a_line(kind: type[Environment], told: str) -> None:
    (line,) = violations(lambda: try_environment(kind))
    assert re.search(told, line) and "\n" not in line, line


class Reverse(Tool):
    description = "Turn a text round."
    parameters: ClassVar = {"text": {"type": "string"}}

    def __call__(self, text: str) -> str:  # type: ignore[override]
        return text[::-1]


class OtherName(Reverse):
    parameters: ClassVar = {"word": {"type": "string"}}


class Undescribed(Reverse):
    description = ""


class NoJson(Reverse):
    parameters: ClassVar = {"text": {"type": str}}


@pytest.mark.parametrize("kind", [Calculator, Python, Reverse])
def test_sound_tools(kind: type[Tool]) -> None:
    assert violations(lambda: try_tool(kind)) == []


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (OtherName, "__call__ does not take its parameters (word)"),
        (Undescribed, "it has no description"),
        (NoJson, "its parameters are no JSON schemas by name"),
    ],
)
def test_a_mistake_in_a_tool_is_told(kind: type[Tool], told: str) -> None:
    assert told in violations(lambda: try_tool(kind))[0]
