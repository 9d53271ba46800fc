"""Environment `openenv`: an episode of a server of OpenEnv, which runs by itself and is asked over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hybridflow.bounds import Positive
from hybridflow.environments.environment import Action, Environment, Observation, Question, environments
from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message
from hybridflow.tasks.openenv_session import Session, said
from hybridflow.tasks.openenv_task import beginning


@environments.register("openenv")
class OpenEnv(Environment):
    """Episode of a server of OpenEnv. Override `action_of` and `told` where its options do not say enough.

    Args:
        url: the address of the server, as http://127.0.0.1:8000.
        action: the field of an action that has a turn's text; "": a turn is the whole action, as JSON.
        action_fields: its other fields, in all actions.
        observation: the field of an observation that is told; "": all of it, as JSON. The task's is the same.
        reset: what an episode begins with beside its seed; what the row says goes before.
        timeout_s: seconds that an answer may take.
        token_env: the name of an environment variable with a bearer token; "": none is sent.

    Raises as `Session`.
    """

    def __init__(
        self,
        url: str,
        action: str = "message",
        action_fields: Mapping[str, Any] | None = None,
        observation: str = "",
        reset: Mapping[str, Any] | None = None,
        timeout_s: Positive = 30.0,
        token_env: str = "",
    ) -> None:
        self._session = Session(url, timeout_s, token_env)
        self._action = action
        self._action_fields = dict(action_fields or {})
        self._observation = observation
        self._reset = dict(reset or {})

    def action_of(self, turn: Action) -> Mapping[str, Any]:
        """Return the action that a turn of the policy is. Raises ValueError for none, which the policy is told."""
        if self._action:
            return {**self._action_fields, self._action: turn.text}
        try:
            given = json.loads(turn.text)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise ValueError(f"{shown(turn.text)} is no action; a JSON object was expected")
        return {**self._action_fields, **given}

    def told(self, observation: Mapping[str, Any]) -> str | Sequence[Message]:
        """Return what the policy is told of an observation, also of the first one. Raises ValueError for none."""
        return said(observation, self._observation)

    async def reset(self, question: Question) -> None:
        fields, shown_before = beginning(question.metadata)
        first = await asyncio.to_thread(self._session.reset, {"seed": question.seed, **self._reset, **fields})
        told = self.told(first.observation)
        if shown_before is not None and told != shown_before:
            raise ValueError(
                f"the episode begins with {shown(told)}, and the prompt says {shown(shown_before)}: the server must "
                "begin alike with the same seed, and the task's options say of observations what the environment's do"
            )
        if first.done:
            raise ValueError("the episode was over before the policy had a turn")

    async def step(self, action: Action) -> Observation:
        try:
            reply = await asyncio.to_thread(self._session.step, self.action_of(action))
        except ValueError as error:  # of `action_of`, or what the server says of it
            told = f"error: {error}".encode(errors="replace").decode()  # as `said` does
            return Observation(told, metrics={"refused_actions": 1.0})
        return Observation(() if reply.done else self.told(reply.observation), reply.reward, reply.done)

    async def close(self) -> None:
        await asyncio.to_thread(self._session.close)
