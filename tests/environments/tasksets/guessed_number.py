"""Taskset of verifiers with an environment of its own, which answers each guess: several turns."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["GuessEnv", "GuessTaskset"]


class GuessData(vf.TaskData):
    number: int = 0


class GuessTask(vf.Task[GuessData]):
    @vf.reward
    async def found(self, task: GuessData, trace: vf.Trace) -> float:
        return float(trace.last_reply == str(task.number))


class GuessTaskset(vf.Taskset[GuessTask, vf.TasksetConfig]):
    def load(self) -> Iterator[GuessTask]:
        for number in range(10):
            yield GuessTask(GuessData(prompt="Guess!", name=str(number), number=number))


class GuessEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class GuessEnv(vf.Env[GuessEnvConfig]):
    async def run(self, task: GuessTask, agents: vf.Agents) -> None:
        async with agents.player.interaction(task) as player:
            said = await player.turn()
            while not said.terminated and said.last_reply != str(task.data.number):
                guess = int(said.last_reply)
                said = await player.turn("higher" if guess < task.data.number else "lower")
