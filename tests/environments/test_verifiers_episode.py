"""Episodes whose model is the policy: what a harness asks is the conversation, gone on with, or it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from hybridflow.environments.chat_endpoint import ChatEndpoint
from hybridflow.environments.verifiers_episode import Episode

pytest.importorskip("aiohttp", reason="aiohttp comes with hybridflow[verifiers], and with the lock file")

QUESTION = {"role": "user", "content": "?"}
Ask = Callable[..., Awaitable[Any]]


@dataclass
class Trace:
    """What verifiers knows of an agent's part in an episode, as far as it is read."""

    id: str
    rewards: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    errors: list[Any] = field(default_factory=list)
    reward: float = 0.0
    stopped: str = ""

    def stop(self, condition: str) -> None:
        self.stopped = condition


@dataclass
class Ended:
    traces: list[Trace]
    ok: bool = True
    errors: list[Any] = field(default_factory=list)


class Program:
    """An environment whose harness is a program of the test's: it asks over HTTP, as any does."""

    def __init__(self, program: Callable[[Ask, Trace], Awaitable[None]]) -> None:
        self.endpoint = ChatEndpoint()
        self._program = program
        self.trace = Trace("first")

    async def run(self, task: Any, mint: Callable[[Trace], None]) -> Ended:
        mint(self.trace)
        mint(Trace("second"))
        async with httpx.AsyncClient() as client:

            async def ask(*messages: Any, session: str = "first", key: str = "", **more: Any) -> Any:
                headers = {"Authorization": f"Bearer {key or self.endpoint.key}", "X-Session-ID": session}
                url = f"{self.endpoint.url}/chat/completions"
                return await client.post(url, json={"messages": messages, **more}, headers=headers)

            await self._program(ask, self.trace)
        return Ended([self.trace])


def played(program: Callable[[Ask, Trace], Awaitable[None]], *turns: str, last: bool = False) -> list[Any]:
    """Return what a program said to each turn, and None where its episode was over; at its end, the outcome."""

    async def play() -> list[Any]:
        stage = Program(program)
        await stage.endpoint.start()
        episode = Episode(stage, None)  # type: ignore[arg-type]
        try:
            seen: list[Any] = [await episode.begin()]
            for number, turn in enumerate(turns, 1):
                message = {"role": "assistant", "content": turn}
                seen.append(await episode.answer(message, "stop", 3, last=last and number == len(turns)))
            return [*seen, episode.outcome()] if seen[-1] is None else seen
        finally:
            await episode.close()

    return asyncio.run(asyncio.wait_for(play(), 20))


def said(reply: Any) -> Any:
    return reply.json()["choices"][0]["message"]


def test_a_program_that_asks_is_a_conversation() -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        first = said(await ask(QUESTION))
        assert first == {"role": "assistant", "content": "one"}
        second = said(await ask(QUESTION, first, {"role": "user", "content": [{"type": "text", "text": "more"}]}))
        trace.reward, trace.metrics = float(second["content"] == "two"), {"tried": 1.0}

    more = {"role": "user", "content": [{"type": "text", "text": "more"}]}
    assert played(program, "one", "two") == [[QUESTION], [more], None, (1.0, {"tried": 1.0})]


def test_a_stream_is_one_piece_and_its_end() -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        events = (await ask(QUESTION, stream=True)).text
        assert '"delta": {"role": "assistant", "content": "one"}' in events and events.endswith("data: [DONE]\n\n")
        trace.reward = 1.0

    assert played(program, "one")[-1] == (1.0, {})


@pytest.mark.parametrize(
    ("again", "problem"),
    [
        (
            [QUESTION, {"role": "assistant", "content": "other"}, QUESTION],
            "changed message 1 .*'one'.* became .*'other'",
        ),
        ([{"role": "user", "content": "!"}, {"role": "assistant", "content": "one"}, QUESTION], "changed message 0"),
        ([QUESTION], "asks again with 1 messages after a conversation of 2: it went back"),
        ([QUESTION, {"role": "assistant", "content": "one"}], "asks again with 2 messages"),
    ],
)
def test_a_conversation_that_is_written_anew_is_found(again: list[Any], problem: str) -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        await ask(QUESTION)
        await ask(*again)

    with pytest.raises(ValueError, match=f"the harness {problem}"):
        played(program, "one")


def test_a_second_agent_is_no_part_of_the_row() -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        await ask(QUESTION)
        await ask(QUESTION, session="second")

    with pytest.raises(ValueError, match="a second agent of the environment asks the policy"):
        played(program, "one")


@pytest.mark.parametrize("setting", [{"stop": ["x"]}, {"n": 2}, {"temperature": 0.2}, {"tool_choice": "required"}])
def test_a_request_for_other_sampling_is_refused(setting: dict[str, Any]) -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        await ask(QUESTION, n=1, tool_choice="auto")
        await ask(QUESTION, {"role": "assistant", "content": "one"}, QUESTION, **{"n": 1, **setting})

    with pytest.raises(ValueError, match=f"the harness asks for {next(iter(setting))}="):
        played(program, "one")


def test_after_the_last_turn_a_request_meets_a_full_context_and_the_episode_is_scored() -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        first = said(await ask(QUESTION))
        full = await ask(QUESTION, first, QUESTION)
        assert full.status_code == 400 and full.json()["error"]["code"] == "context_length_exceeded"
        trace.reward = 0.5

    assert played(program, "one", last=True)[-1] == (0.5, {})


def test_strangers_are_refused() -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        assert (await ask(QUESTION, key="mine")).status_code == 401
        assert (await ask(QUESTION, session="nobody")).status_code == 404
        await ask(QUESTION)

    assert played(program, "one")[-1] == (0.0, {})


def test_an_episode_that_fails_has_no_outcome() -> None:
    async def program(ask: Ask, trace: Trace) -> None:
        raise OSError("no tools today")

    with pytest.raises(OSError, match="no tools today"):
        played(program, "one")
