"""A plugin: the guessing game whose answers are late in some conversations."""

from __future__ import annotations

import asyncio

from hybridflow.environments import Action, Observation, Question, environments
from hybridflow.environments.guess import Guess

NAME = "late_guess"


@environments.register(NAME)
class LateGuess(Guess):
    """Answers at once in most conversations, and late in one of four."""

    def __init__(self, higher: str = "+", lower: str = "=", no_number: str = "+=", late_s: float = 1.0) -> None:
        super().__init__(higher, lower, no_number)
        self._late_s = late_s

    async def reset(self, question: Question) -> None:
        await super().reset(question)
        self._late_by = 0.0 if question.seed % 4 else self._late_s

    async def step(self, action: Action) -> Observation:
        await asyncio.sleep(self._late_by)
        return await super().step(action)
