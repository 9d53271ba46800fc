"""Environments that do what environments should not, for tests with a process that they run in."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import Any

from hybridflow.environments import Action, Environment, Observation, Question, environments


@environments.register("does")
class Does(Environment):
    """Do what an action says; else say how often it has been asked, and be done after `turns`."""

    def __init__(self, turns: int = 2) -> None:
        self.turns = turns
        self.asked = 0

    async def reset(self, question: Question) -> Any:
        self.question = question
        if question.prompt == "unwilling":
            raise RuntimeError("not this one")
        return Observation("welcome") if question.prompt == "welcoming" else None

    async def step(self, action: Action) -> Any:
        self.asked += 1
        match action.text:
            case "raises":
                raise RuntimeError("no")
            case "interrupts":
                raise KeyboardInterrupt
            case "exits":
                os._exit(3)
            case "forks":
                os.fork()
            case "crashes":
                ctypes.string_at(0)
            case "waits":
                await asyncio.sleep(600)
            case "takes a while":
                await asyncio.sleep(0.3)
            case "blocks":
                time.sleep(600)
            case "gives no observation":
                return "well done"
            case "gives no number":
                return Observation("go on", reward=float("nan"))
            case "says what JSON does not":
                return Observation([{"role": "user", "content": "hi", "at": self}])
            case "says too much":
                return Observation("o" * 4_000_001)
            case "measures without a name":
                return Observation("go on", metrics={"a\x1b[2J": 1})
            case "counts turns":
                return Observation("go on", metrics={"turns": 1})
            case "says nothing":
                return Observation()
            case "speaks as another":
                return Observation([{"role": "tool", "content": "42"}])
        parts = {"asked": self.asked, "seed": self.question.seed}
        return Observation(f"{self.question.answer} {self.asked}", 0.5, self.asked == self.turns, parts)


@environments.register("does_plainly")
class DoesPlainly(Environment):
    """Answer by a plain function, which runs in a thread."""

    def step(self, action: Action) -> Any:
        if action.text == "takes a while":
            time.sleep(0.3)
        if action.text == "awaits":
            return asyncio.sleep(0, Observation("later", 1.0))
        return Observation("again", 1.0)


@environments.register("talks")
class Talks(Environment):
    """Answer in digits, how long depends on what was said; do otherwise where the row's answer says so."""

    async def reset(self, question: Question) -> None:
        self.answer = question.answer

    async def step(self, action: Action) -> Observation:
        if self.answer == "fails" and action.turn == 1:
            raise RuntimeError("the weather")
        if self.answer == "slow":
            await asyncio.sleep(0.5)
        done = self.answer == "short" and action.turn == 1
        return Observation(f"{action.tokens}{len(action.text)}{action.turn}", 0.5 + action.turn, done, {"asked": 1})
