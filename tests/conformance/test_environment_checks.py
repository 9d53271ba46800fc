"""Environments as `hybridflow check` tries them: each planted mistake is told."""

from __future__ import annotations

import random
import re

import pytest

from hybridflow.conformance.environment_checks import try_environment
from hybridflow.conformance.expectations import violations
from hybridflow.environments import Action, Environment, Observation, Question


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


class Needy(Sound):
    def __init__(self, level: int) -> None:
        self.level = level


TOLD: list[tuple[type[Environment], str]] = [
    (Dicing, r"on turn 0 \(seed 7\) it gave Observation.* and then Observation"),
    (Silent, r"on turn 0, '': ValueError: step gave an Observation without messages"),
    (Breaking, r"on turn 0, '': ValueError: could not convert string to float.*test_environment_checks\.py:\d+"),
    (Choosy, "it refuses every question that was tried: .*not that"),
    (Needy, r"it needs options \(level\)"),
]


@pytest.mark.parametrize("kind", [Sound, Plain])
def test_sound_ones_are(kind: type[Environment]) -> None:
    assert violations(lambda: try_environment(kind)) == []


@pytest.mark.parametrize(("kind", "told"), TOLD)
def test_a_mistake_is_told_in_a_line(kind: type[Environment], told: str) -> None:
    (line,) = violations(lambda: try_environment(kind))
    assert re.search(told, line) and "\n" not in line, line
