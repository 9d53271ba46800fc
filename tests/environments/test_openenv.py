"""Environments of OpenEnv, each an episode of a server that is a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.environments import Action, Observation, Question
from hybridflow.environments.environment import make, sound_observation
from hybridflow.environments.openenv_environment import OpenEnv
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.tasks import build, openenv_session
from hybridflow.tasks.openenv_session import ServerError, Session, said

SERVER = Path(__file__).with_name("openenv_server.py")
REAL_PYTHON = os.environ.get("OPENENV_PYTHON", "")
TOKEN = "HYBRIDFLOW_TEST_TOKEN"
FIRST = "a number from 0 to 9"

pytestmark = pytest.mark.processes


@contextmanager
def server(kind: str = "protocol", **env: str) -> Iterator[str]:
    """Yield the address of a server."""
    python = REAL_PYTHON if kind == "real" else sys.executable
    command = [python, str(SERVER), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            address = f"http://127.0.0.1:{port}"
            if kind == "real":  # it tells its port before it listens
                with httpx.Client(transport=httpx.HTTPTransport(retries=5), trust_env=False) as client:
                    client.get(f"{address}/health")
            yield address
        finally:
            process.kill()


@pytest.fixture(scope="module", params=["protocol", "real"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "real" and not REAL_PYTHON:
        pytest.skip(
            "OPENENV_PYTHON names no Python that has openenv, which wants an mcp below 2 and vLLM one from 2 on"
        )
    with server(request.param) as address:
        yield address


def played(
    url: str, *turns: str, seed: int = 7, metadata: Mapping[str, Any] | None = None, **options: Any
) -> list[Observation]:
    """Return what an environment says to turns."""

    async def play() -> list[Observation]:
        environment = make("openenv", {"url": url, "action": "guess", "observation": "told", **options})
        await environment.reset(Question("", seed=seed, metadata=metadata or {}))
        try:
            return [
                sound_observation(environment, await environment.step(Action(turn, turn=number)))
                for number, turn in enumerate(turns)
            ]
        finally:
            await environment.close()

    return asyncio.run(play())


def texts(seen: Sequence[Observation]) -> list[Any]:
    return [(*(one["content"] for one in seen_one.messages), seen_one.reward, seen_one.done) for seen_one in seen]  # type: ignore[index]


def test_an_episode_is_a_conversation(url: str) -> None:
    assert texts(played(url, "3", "9", "7")) == [("higher", 0.0, False), ("lower", 0.0, False), (1.0, True)]


def test_an_action_may_be_json_and_an_observation_too(url: str) -> None:
    (first,) = played(url, '{"guess": 3}', action="", observation="")
    assert first.messages == [{"role": "user", "content": '{"told": "higher"}'}]


def test_a_turn_that_is_no_action_is_told_what_is_wrong_with_it(url: str) -> None:
    (refused, right) = played(url, "seven", "7")
    assert '{"field": ["guess"]' in refused.messages[0]["content"] and refused.metrics == {"refused_actions": 1.0}  # type: ignore[index]
    assert right.reward == 1.0
    (no_json,) = played(url, "seven", action="")
    assert no_json.messages[0]["content"] == "error: 'seven' is no action; a JSON object was expected"  # type: ignore[index]


def test_sessions_are_apart_and_have_a_state(url: str) -> None:
    first, second = Session(url, 10.0), Session(url, 10.0)
    first.reset({"seed": 1})
    second.reset({"seed": 2})
    assert (first.step({"guess": 1}).done, second.step({"guess": 1}).done) == (True, False)
    second.step({"guess": 1})
    assert (first.state()["step_count"], second.state()["step_count"]) == (1, 2)
    first.close()
    second.close()


def test_what_goes_wrong_in_the_server_is_a_failure(url: str) -> None:
    with pytest.raises(ServerError, match="EXECUTION_ERROR: what a number"):
        played(url, "77")


def test_rows_are_seeds_whose_prompt_is_the_first_observation(url: str) -> None:
    options = {"url": url, "prompt": "Guess.", "observation": "told", "train_rows": 4, "held_out_rows": 2}
    task = build("openenv", any_text_tokenizer(), options)
    row = task.example("train", 1)
    assert row.prompt == [{"role": "user", "content": f"Guess.\n\n{FIRST}"}]
    assert row.metadata == {"openenv": {"reset": {"seed": 3}, "said": FIRST}} and task.example("train", 1) == row
    seeds = [{task.example(split, n).sample_id for n in range(task.size(split))} for split in ("train", "held_out")]
    assert seeds == [{2, 3, 4, 5}, {0, 1}]
    assert texts(played(url, "3", metadata=row.metadata)) == [(1.0, True)], "the row's seed, not the conversation's"


def test_an_episode_that_begins_otherwise_than_the_prompt_is_a_failure(url: str) -> None:
    with pytest.raises(ValueError, match=r"begins with 'a number .*, and the prompt says 'a number from 0 to 9'"):
        played(url, "3", metadata={"openenv": {"reset": {"seed": 3, "unlike": True}, "said": FIRST}})


def test_an_environment_of_ones_own_says_what_its_fields_are(url: str) -> None:
    class Spoken(OpenEnv):
        def action_of(self, turn: Action) -> Mapping[str, Any]:
            return {"guess": turn.text.removeprefix("is it ")}

        def told(self, observation: Mapping[str, Any]) -> str:
            return f"It is {observation['told']}."

    async def play() -> Observation:
        environment = Spoken(url)
        await environment.reset(Question("", seed=7))
        seen = await environment.step(Action("is it 3"))
        await environment.close()
        return seen

    assert asyncio.run(play()).messages == "It is higher."


@pytest.mark.parametrize(
    ("guess", "problem"), [("88", "no answer within 0.5 s"), ("99", "ConnectionClosed|ConnectionReset")]
)
def test_a_server_that_is_late_or_lost_is_a_failure(guess: str, problem: str) -> None:
    with server() as address, pytest.raises(ServerError, match=f"{address}: .*({problem})"):
        played(address, guess, timeout_s=0.5)


def test_a_server_that_is_not_there_is_told_before_a_run() -> None:
    task = build("openenv", any_text_tokenizer(), {"url": "http://127.0.0.1:9", "timeout_s": 5.0})
    with pytest.raises(HybridFlowError, match=r"http://127\.0\.0\.1:9: no server .* answers: ConnectionRefused"):
        task.example("train", 0)


def test_a_server_may_want_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "secret")
    with server(WANTED_TOKEN="secret") as address:
        assert texts(played(address, "7", token_env=TOKEN)) == [(1.0, True)]
        with pytest.raises(ServerError, match="HTTP 403"):
            played(address, "7")


def test_a_server_sends_nobody_elsewhere() -> None:
    with (
        server() as other,
        server(REDIRECTED_TO=other.replace("http", "ws")) as address,
        pytest.raises(ServerError, match=f"{address}: .*(redirect|HTTP 302)"),
    ):
        played(address, "7")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "here"}, "url: 'here' given; an address was expected"),
        ({"url": "http://127.0.0.1:1", "token_env": "NO_SUCH_VARIABLE"}, "the environment has no NO_SUCH_VARIABLE"),
        ({}, "url: must be given"),
    ],
)
def test_options_that_cannot_be_are_told(options: dict[str, Any], problem: str) -> None:
    makers: list[Callable[[], Any]] = [
        lambda: make("openenv", options),
        lambda: build("openenv", any_text_tokenizer(), options),
    ]
    for made in makers:
        with pytest.raises((HybridFlowError, ConfigError), match=problem):
            made()


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openenv_session, "find_spec", lambda name: None)
    with pytest.raises(HybridFlowError, match=r"pip install 'hybridflow\[openenv\]'"):
        make("openenv", {"url": "http://127.0.0.1:1"})


def test_what_is_told_of_an_observation() -> None:
    observation = {"board": [1, 2], "text": "é\ud800", "metadata": {"secret": 1}}
    assert said(observation, "board") == "[1, 2]" and said(observation, "text") == "é?"
    assert "secret" not in said(observation, "")
    with pytest.raises(ValueError, match="has no 'bord'; it has board, text, metadata"):
        said(observation, "bord")


def test_a_refusal_is_told_in_characters_that_a_tokenizer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = make("openenv", {"url": "http://127.0.0.1:1"})
    refusal = json.dumps({"type": "error", "data": {"code": openenv_session.REFUSED, "message": "no \ud800\x1b"}})

    def refuse(session: Session, message: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
        return session._data(refusal, kind)

    monkeypatch.setattr(Session, "_ask", refuse)
    assert asyncio.run(environment.step(Action("word"))).messages == "error: no ?\x1b"  # type: ignore[arg-type]
