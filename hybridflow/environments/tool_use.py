"""Environment `tools`: the policy calls functions, is told what they give, and its turn without a call is graded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from hybridflow.bounds import Count
from hybridflow.environments.environment import Action, Environment, Observation, Question, environments
from hybridflow.environments.graded_turn import graded, whole_grader
from hybridflow.environments.tool_calls import Call
from hybridflow.environments.tools import Tool, ToolError, tools
from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message
from hybridflow.tasks.text_graders import validator_of


@environments.register("tools")
class ToolUse(Environment):
    """Conversation with tools. What calls give is told as messages of the role `tool`, one a call, in their order.

    A call that cannot be made is no failure of the environment: the policy is told what is wrong with it.

    Args:
        grader: grades the turn without calls, which is the last; its grade is the reward.
        grader_options: what the grader takes.
        tools: names of the tools that may be called.
        tool_options: by tool, what its constructor takes.
        max_characters: of what a call gives; the rest is cut.
    """

    roles: ClassVar[tuple[str, ...]] = ("tool",)

    def __init__(
        self,
        grader: str = "last_number",
        grader_options: Mapping[str, Any] | None = None,
        tools: Sequence[str] = ("calculator",),
        tool_options: Mapping[str, Mapping[str, Any]] | None = None,
        max_characters: Count = 4000,
    ) -> None:
        self._grader = whole_grader(grader, grader_options)
        self._tools = {name: _made(name, (tool_options or {}).get(name) or {}) for name in tools}
        self._max_characters = max_characters
        self._question = Question("")

    @property
    def specs(self) -> list[dict[str, Any]]:
        """Tools as the chat template is given them."""
        return [type(tool).spec(name) for name, tool in self._tools.items()]

    async def reset(self, question: Question) -> None:
        if self._grader.check_answer:
            self._grader.check_answer(question.answer)
        self._question = question

    async def step(self, action: Action) -> Observation:
        if not action.calls or action.finish_reason == "length":
            grade = await graded(self._grader, self._question, action)
            return Observation(reward=grade.value, done=True, metrics=grade.parts)
        messages: list[Message] = []
        wrong = 0
        for call in action.calls:
            try:
                told = await asyncio.to_thread(self._call, call)
            except ToolError as error:
                told = f"error: {error}"
                wrong += 1
            known = {"tool_call_id": call["id"], "name": self._named(call)} if "id" in call else {}
            # JSON that the policy writes may have half of a surrogate pair, which no tokenizer takes.
            content = told[: self._max_characters].encode(errors="replace").decode()
            messages.append({"role": "tool", "content": content, **known})
        return Observation(messages, metrics={"calls": len(messages), "wrong_calls": wrong})

    def _named(self, call: Call) -> str:
        """Return the tool's name for a template; what a policy makes up may have a special token's text in it."""
        name: str = call["function"]["name"]
        return name if name in self._tools else "unknown"

    def _call(self, call: Call) -> str:
        """Make a call. Raises ToolError for one that cannot be made."""
        if "problem" in call:
            raise ToolError(call["problem"])
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if name not in self._tools:
            raise ToolError(f"no tool is named {shown(name)}; there is {', '.join(self._tools)}")
        tool = self._tools[name]
        if set(arguments) != set(tool.parameters):
            raise ToolError(f"{name} takes {', '.join(tool.parameters)}; given was {', '.join(arguments) or 'nothing'}")
        if wrong := _wrong(type(tool), name, arguments):
            raise ToolError(wrong)
        told: object = tool(**arguments)
        if not isinstance(told, str):
            raise TypeError(f"tool {name!r} gave {shown(told)}, of type {type(told).__name__}; a text was expected")
        return told


def _made(name: str, options: Mapping[str, Any]) -> Tool:
    kind = tools.get(name)
    _schema(kind, name)
    return kind(**options)


@cache
def _schema(kind: type[Tool], name: str) -> Any:
    """Return what checks a call's arguments. Raises ValueError if the policy would be told of none."""
    try:
        return validator_of(kind.spec(name)["function"]["parameters"])
    except ValueError as error:
        raise ValueError(f"parameters of tool {name!r}: {error}") from error


def _wrong(kind: type[Tool], name: str, arguments: Mapping[str, Any]) -> str:
    """Say what a tool's schemas do not allow of arguments; "" if they allow all."""
    try:
        error = next(_schema(kind, name).iter_errors(arguments), None)
    except (OverflowError, RecursionError):  # a number of too many digits, where one is divided
        return f"{name} cannot take {shown(arguments)}"
    return "" if error is None else f"{'.'.join(map(str, error.path))} of {name}: {error.message}"
