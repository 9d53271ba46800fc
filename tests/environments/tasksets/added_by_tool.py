"""Taskset of verifiers with a tool."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["AddedTaskset"]


class AddedData(vf.TaskData):
    answer: str = ""


class Adder(vf.Toolset[vf.SharedToolsetConfig, vf.State]):
    @vf.tool
    async def add(self, a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)


class AddedTask(vf.Task[AddedData]):
    @vf.reward
    async def right(self, task: AddedData, trace: vf.Trace) -> float:
        return float(task.answer in trace.last_reply)


class AddedTaskset(vf.Taskset[AddedTask, vf.TasksetConfig]):
    @classmethod
    def toolsets(cls, config: vf.TasksetConfig) -> list[vf.Toolset]:
        return [Adder(vf.SharedToolsetConfig())]

    def load(self) -> Iterator[AddedTask]:
        for number in range(100, 106):
            yield AddedTask(AddedData(prompt=f"{number} + {number}", answer=str(2 * number)))


if __name__ == "__main__":  # how verifiers serves tools
    Adder.run()
