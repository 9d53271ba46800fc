"""A server of OpenEnv, a program of its own: `python openenv_server.py real` with the package openenv, or `protocol`.

A number is to be guessed, `seed % 10`. The second speaks what the first does, so that tests need no such package: it
wants an older mcp than vLLM, so it cannot be beside it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any


def answer(number: int, guess: int) -> dict[str, Any]:
    told = "right" if guess == number else "higher" if guess < number else "lower"
    if guess == 77:
        raise RuntimeError("what a number")
    if guess == 88:
        time.sleep(60)
    if guess == 99:
        os._exit(3)
    return {"told": told, "done": guess == number, "reward": 1.0 if guess == number else None}


def beginning(seed: int, unlike: bool) -> str:
    """What an episode begins with; of a server that keeps no seed, another each time."""
    return f"a number from 0 to 9{f' ({time.time_ns()})' if unlike else ''}"


def protocol() -> None:
    from http import HTTPStatus

    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve

    def process(connection: Any, request: Any) -> Any:
        token = os.environ.get("WANTED_TOKEN")
        if elsewhere := os.environ.get("REDIRECTED_TO"):
            moved = connection.respond(HTTPStatus.FOUND, "elsewhere\n")
            moved.headers["Location"] = f"{elsewhere}/ws"
            return moved
        if request.path != "/ws" or (token and request.headers.get("Authorization") != f"Bearer {token}"):
            return connection.respond(HTTPStatus.FORBIDDEN, "no\n")
        return None

    def handle(connection: Any) -> None:
        number, steps = 0, 0

        def observation(told: str, done: bool = False, reward: float | None = None) -> dict[str, Any]:
            data = {"observation": {"told": told, "metadata": {}}, "reward": reward, "done": done, "metadata": {}}
            return {"type": "observation", "data": data}

        try:
            for text in connection:
                message = json.loads(text)
                data = message.get("data", {})
                if message["type"] == "reset":
                    number, steps = data["seed"] % 10, 0
                    said = observation(beginning(data["seed"], data.get("unlike", False)))
                elif message["type"] == "state":
                    said = {"type": "state", "data": {"step_count": steps}}
                else:
                    try:
                        guess = int(data["guess"])
                    except ValueError:
                        wrong = {"loc": ["guess"], "msg": "a number, please"}
                        error = {"message": "Invalid message", "code": "VALIDATION_ERROR", "errors": [wrong]}
                        connection.send(json.dumps({"type": "error", "data": error}))
                        continue
                    steps += 1
                    try:
                        said = observation(**answer(number, guess))
                    except RuntimeError as error:
                        said = {"type": "error", "data": {"message": str(error), "code": "EXECUTION_ERROR"}}
                connection.send(json.dumps(said))
        except ConnectionClosed:
            pass

    with serve(handle, "127.0.0.1", 0, process_request=process) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


def real() -> None:
    import uvicorn
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Guess(Action):
        guess: int

    class Told(Observation):
        told: str = ""

    class Guessing(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed: int | None = None, episode_id: str | None = None, unlike: bool = False) -> Told:
            self._number, self._state = (seed or 0) % 10, State(episode_id=episode_id, step_count=0)
            return Told(told=beginning(seed or 0, unlike))

        def step(self, action: Guess) -> Told:  # type: ignore[override]
            self._state.step_count += 1
            return Told(**answer(self._number, action.guess))

        @property
        def state(self) -> State:
            return self._state

    app = create_fastapi_app(Guessing, Guess, Told, max_concurrent_envs=8)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])


if __name__ == "__main__":
    {"real": real, "protocol": protocol}[sys.argv[1]]()
