"""Taskset of verifiers whose environment goes on talking, and likes short answers."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["TalkEnv", "TalkTaskset"]


class TalkTask(vf.Task[vf.TaskData]):
    @vf.reward
    async def brief(self, trace: vf.Trace) -> float:
        return 1 / (1 + len(trace.last_reply))


class TalkTaskset(vf.Taskset[TalkTask, vf.TasksetConfig]):
    def load(self) -> Iterator[TalkTask]:
        for number in range(8):
            yield TalkTask(vf.TaskData(prompt=f"What of {number}?"))


class TalkEnvConfig(vf.EnvConfig):
    talker: vf.AgentConfig = vf.AgentConfig()


class TalkEnv(vf.Env[TalkEnvConfig]):
    async def run(self, task: TalkTask, agents: vf.Agents) -> None:
        async with agents.talker.interaction(task) as talker:
            said = await talker.turn()
            while not said.terminated:
                said = await talker.turn(f"Why {said.last_reply[:1]!r}?")
