"""Environments `verifiers` and `verifiers_tools`: those of the package verifiers, as they are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hybridflow.environments.environment import (
    OWN_METRICS,
    Action,
    Environment,
    Observation,
    Question,
    environments,
)
from hybridflow.errors import HybridFlowError, shown
from hybridflow.tasks import verifiers_task
from hybridflow.tasks.chat_messages import Message, checked

if TYPE_CHECKING:
    from hybridflow.environments.verifiers_episode import Episode

FINISHED = {"length": "length"}  # as OpenAI has it; all other turns were ended by the policy


@environments.register("verifiers")
class Verifiers(Environment):
    """Environment of the package verifiers whose agent is offered no tools.

    Args:
        taskset: the name of its package, as of the task `verifiers`.
        config: the environment's configuration, as the table `[env]` of verifiers' own files; the task's is the same.

    Raises HybridFlowError without the package.
    """

    def __init__(self, taskset: str, config: Mapping[str, Any] | None = None) -> None:
        verifiers_task.required()
        self._taskset = taskset
        self._config: dict[str, Any] = json.loads(json.dumps(config or {}))
        self._episode: Episode | None = None

    async def reset(self, question: Question) -> None:
        from hybridflow.environments.verifiers_episode import Episode, stage

        _find_programs()
        known = verifiers_task.asked(question.metadata)
        if known["taskset"] != self._taskset:
            raise ValueError(f"the row is of the taskset {known['taskset']!r}, the environment of {self._taskset!r}")
        shared = await stage(self._taskset, self._config)
        self._episode = Episode(shared, shared.task(known))
        asked = _texts(await self._episode.begin())
        if asked != _texts(question.messages):
            raise ValueError(
                f"the harness asks the policy {shown(asked)}, and the prompt is {shown(list(question.messages))}; "
                "leave out what changes the task's prompt: task.system_prompt, task.prefill, or the harness's own"
            )
        if list(self._episode.tools) != await asyncio.to_thread(lambda: self.specs):  # servers of tools have a loop
            named = [tool.get("function", {}).get("name") for tool in self._episode.tools]
            raise ValueError(
                f"the harness offers the tools {named}, and the chat template was given others; name the environment "
                "verifiers_tools where there are any"
            )

    async def step(self, action: Action) -> Observation:
        assert self._episode is not None
        finish = FINISHED.get(action.finish_reason, "tool_calls" if action.calls else "stop")
        said = await self._episode.answer(_turn(action), finish, action.tokens, last=action.last)
        if said is not None:
            return Observation(checked(said))
        reward, metrics = self._episode.outcome()
        named = {f"verifiers_{name}" if name in OWN_METRICS else name: value for name, value in metrics.items()}
        return Observation(reward=reward, done=True, metrics=named)

    async def close(self) -> None:
        if self._episode is not None:
            await self._episode.close()


@environments.register("verifiers_tools")
class VerifiersTools(Verifiers):
    """Environment of the package verifiers whose agent has the taskset's tools."""

    roles: ClassVar[tuple[str, ...]] = ("user", "tool")

    @property
    def specs(self) -> list[dict[str, Any]]:
        """Tools of the taskset, as its harness offers them."""
        try:
            return _specs(self._taskset, json.dumps(self._config))
        except ValueError as error:
            raise HybridFlowError(str(error)) from error


@cache
def _specs(taskset: str, config: str) -> list[dict[str, Any]]:
    """Return the tools that a taskset's servers have. Raises ValueError for one that only another machine knows."""
    import verifiers.v1 as vf
    from mcp.server.mcpserver import MCPServer

    made = verifiers_task.env_config(taskset, json.loads(config))
    shared = type(vf.load_taskset(made.taskset)).toolsets(made.taskset)
    found = []
    for toolset in (*shared, *vf.task_type(taskset).toolsets(made.taskset.task)):
        name = toolset.server_name
        if toolset.config.url:
            raise ValueError(f"the tools {name!r} are those of a server elsewhere, which cannot be told before a run")
        server = MCPServer(name or type(toolset).__name__)
        toolset.register(server)
        for tool in asyncio.run(server.list_tools()):
            function = {
                "name": f"{name}_{tool.name}" if name else tool.name,
                "description": tool.description or "",
                "parameters": tool.input_schema,
            }
            found.append({"type": "function", "function": function})
    return found


def _turn(action: Action) -> Message:
    """Return a turn of the policy as a server of chat completions gives it."""
    calls = action.calls
    if not calls or any("problem" in call for call in calls):  # what is no call is text
        return {"role": "assistant", "content": action.text}
    written = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in calls
    ]
    return {"role": "assistant", "content": action.beside_calls or None, "tool_calls": written}


def _texts(messages: Any) -> list[tuple[str, str]]:
    return [(one["role"], one.get("content") or "") for one in checked(messages)]


def _find_programs() -> None:
    """Let programs that verifiers starts find `uv`, which is installed beside Python."""
    beside = str(Path(sys.executable).parent)
    if beside not in (path := os.environ.get("PATH", "")).split(os.pathsep):
        os.environ["PATH"] = f"{beside}{os.pathsep}{path}"
