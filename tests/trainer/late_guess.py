"""A plugin: the guessing game whose answers are late, each by another time."""

from __future__ import annotations

import asyncio

from hybridflow.environments import Action, Observation, Question, environments
from hybridflow.environments.guess import Guess

NAME = "late_guess"


@environments.register(NAME)
class LateGuess(Guess):
    """Answers within `within_s`, one conversation sooner than another."""

    def __init__(self, higher: str = "+", lower: str = "=", no_number: str = "+=", within_s: float = 2.0) -> None:
        super().__init__(higher, lower, no_number)
        self._within_s = within_s

    async def reset(self, question: Question) -> None:
        await super().reset(question)
        self._late_by = question.seed % 100 / 100 * self._within_s

    async def step(self, action: Action) -> Observation:
        await asyncio.sleep(self._late_by)
        return await super().step(action)
