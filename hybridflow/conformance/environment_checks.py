"""Environments as functions: an answer for any turn, the same from the same seed, and an end; and tools."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

from hybridflow.conformance.expectations import ExpectationError, describe_error, expect
from hybridflow.conformance.task_checks import ANSWERS, RESPONSES
from hybridflow.environments.environment import (
    Action,
    Environment,
    Observation,
    Question,
    refuse_said,
    sound_observation,
)
from hybridflow.environments.tools import Tool
from hybridflow.options import faults
from hybridflow.tasks.grader_registry import options_shell

SEED = 7


def try_environment(kind: type[Environment]) -> None:
    """Try an environment without options: sound answers to turns of all kinds, and the same ones again.

    A ValueError in `reset` is a refusal of a question, if there is one that it takes.
    """
    needed = faults(options_shell(kind), {})
    expect(not needed, f"it needs options ({', '.join(needed)}), and is tried without any: give each a default")
    refused = []
    for answer in ANSWERS:
        try:
            played, again = (asyncio.run(_play(kind, answer)) for _ in range(2))
        except _RefusedError as error:
            refused.append(str(error))
            continue
        for turn, (first, second) in enumerate(zip(played, again, strict=False)):
            expect(first == second, f"on turn {turn} (seed {SEED}) it gave {first} and then {second}")
        expect(
            len(played) == len(again), f"with the seed {SEED} it was done after {len(played)} turns, then {len(again)}"
        )
    expect(len(refused) < len(ANSWERS), f"it refuses every question that was tried: {refused[-1:]}")


class _RefusedError(Exception):
    """The environment takes no such question."""


async def _play(kind: type[Environment], answer: str) -> list[Observation]:
    """Return what an environment says to turns of all kinds, until it is done."""
    environment = kind()
    try:
        begun = await _result(environment.reset(Question(f"{answer}?", answer, seed=SEED)))
    except ValueError as error:
        raise _RefusedError(f"{answer!r} ({error})") from error
    try:
        refuse_said(begun)
    except ValueError as error:
        raise ExpectationError(str(error)) from error
    seen: list[Observation] = []
    for turn, text in enumerate((*RESPONSES, answer)):
        try:
            given = await _result(environment.step(Action(text, text, turn, len(text))))
            seen.append(sound_observation(environment, given))
        except (Exception, SystemExit) as error:
            raise ExpectationError(f"on turn {turn}, {text!r}: {describe_error(error)}") from error
        if seen[-1].done:
            break
    await _result(environment.close())
    return seen


async def _result(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given


def try_tool(kind: type[Tool]) -> None:
    """Expect that a policy can be told of a tool, and that it takes the arguments that the policy is told of."""
    expect(bool(kind.description), "it has no description, which is all that the policy is told of what it does")
    try:
        json.dumps(kind.spec("tool"))
    except (TypeError, ValueError) as error:
        raise ExpectationError(f"its parameters are no JSON schemas by name: {describe_error(error)}") from error
    try:
        inspect.signature(kind.__call__).bind(None, **dict.fromkeys(kind.parameters))
    except TypeError as error:
        named = ", ".join(kind.parameters)
        raise ExpectationError(f"__call__ does not take its parameters ({named}): {error}") from error
