"""Session with a server of OpenEnv: one connection, over which it is told to begin an episode and what is done in it.

The protocol is that of its endpoint `/ws` (openenv.core.env_server.http_server): its plain requests `/reset` and
`/step` each make an environment of their own, so only a connection is an episode.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hybridflow.errors import HybridFlowError, shown
from hybridflow.tasks.endpoint import is_address

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

LARGEST = 16 << 20  # bytes of a message
REFUSED = "VALIDATION_ERROR"  # the code of an error that says: this is no action of the environment
HINTS = {"CAPACITY_REACHED": "; raise max_concurrent_envs of the server to the conversations that go on at a time"}


class ServerError(HybridFlowError):
    """A server is not there, has gone, is late, or says that something is wrong."""


class ActionRefusedError(ValueError):
    """A server takes no such action."""


@dataclass(frozen=True)
class Reply:
    """What a server says of an episode.

    Attributes:
        observation: its fields, but `done` and `reward`.
        reward: of the action.
        done: the episode is over.
    """

    observation: Mapping[str, Any]
    reward: float
    done: bool


class Session:
    """One session; it is connected where it is first needed.

    Args:
        url: the address of the server, as http://127.0.0.1:8000; nothing else is ever called.
        timeout_s: seconds that an answer may take.
        token_env: the name of an environment variable with a bearer token; "": none is sent.

    Raises ValueError for what is no address, HybridFlowError without the package or if there is no such variable.
    """

    def __init__(self, url: str, timeout_s: float, token_env: str = "") -> None:
        if find_spec("websockets") is None:
            raise HybridFlowError(
                "openenv needs the package websockets, which is not installed: pip install 'hybridflow[openenv]'"
            )
        if not is_address(url):
            raise ValueError(f"url: {shown(url)} given; an address was expected, as http://127.0.0.1:8000")
        if token_env and not os.environ.get(token_env):
            raise HybridFlowError(f"token_env: the environment has no {token_env}, which is to have the token of {url}")
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._token_env = token_env
        self._open = ExitStack()
        self._connection: ClientConnection | None = None

    def reset(self, fields: Mapping[str, Any]) -> Reply:
        """Begin an episode. Raises ServerError."""
        return self._reply(self._ask({"type": "reset", "data": dict(fields)}, "observation"))

    def step(self, action: Mapping[str, Any]) -> Reply:
        """Do something in it. Raises ActionRefusedError for what is no action of the environment, ServerError."""
        return self._reply(self._ask({"type": "step", "data": dict(action)}, "observation"))

    def state(self) -> Mapping[str, Any]:
        """Return the state of the episode as the server tells it. Raises ServerError."""
        return self._ask({"type": "state"}, "state")

    def close(self) -> None:
        """End the session."""
        self._connection = None
        self._open.close()

    def _ask(self, message: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
        """Send a message, and return the data of its answer."""
        from websockets.exceptions import WebSocketException

        try:
            connection = self._connected()
            connection.send(json.dumps(message))
            text = connection.recv(self._timeout_s)
        except TimeoutError:
            self.close()
            raise ServerError(f"{self._url}: no answer within {self._timeout_s:g} s") from None
        except (OSError, WebSocketException) as error:
            self.close()
            raise ServerError(f"{self._url}: no server of OpenEnv answers: {type(error).__name__}: {error}") from error
        return self._data(text, kind)

    def _connected(self) -> ClientConnection:
        from websockets.sync.client import connect

        if self._connection is None:
            token = os.environ.get(self._token_env, "") if self._token_env else ""
            try:
                connecting = connect(
                    f"ws{self._url.removeprefix('http')}/ws",
                    sock=_connected_socket(self._url, self._timeout_s),
                    additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                    open_timeout=self._timeout_s,
                    close_timeout=1.0,
                    max_size=LARGEST,
                    ping_interval=None,  # an environment may think for longer than a ping would wait
                    proxy=None,
                )
            except ValueError as error:  # a redirect, over a socket that is ours
                raise ServerError(f"{self._url}: {error}") from error
            self._connection = self._open.enter_context(connecting)
        return self._connection

    def _data(self, text: str | bytes, kind: str) -> Mapping[str, Any]:
        try:
            answer = json.loads(text)
            data, found = answer["data"], answer["type"]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise ServerError(f"{self._url}: {shown(text)} was answered, which is no message of OpenEnv") from None
        if found == kind and isinstance(data, Mapping):
            return data
        if found != "error" or not isinstance(data, Mapping):
            raise ServerError(f"{self._url}: a message {shown(found)} was answered, {kind!r} was expected")
        code, said = data.get("code"), data.get("message")
        if code == REFUSED:
            raise ActionRefusedError(json.dumps(_faults(data)) if data.get("errors") else str(said))
        raise ServerError(f"{self._url}: {code}: {said}{HINTS.get(str(code), '')}")

    def _reply(self, data: Mapping[str, Any]) -> Reply:
        observation, reward, done = data.get("observation"), data.get("reward"), data.get("done", False)
        if not isinstance(observation, Mapping) or not isinstance(reward, float | int | None):
            raise ServerError(f"{self._url}: {shown(data)} was answered; an observation and a reward were expected")
        return Reply(observation, float(reward or 0.0), bool(done))


def _connected_socket(url: str, timeout_s: float) -> socket.socket:
    """Connect to the address itself. Websockets would else follow redirects to others."""
    parts = urlsplit(url)
    made = socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout_s)
    made.settimeout(None)
    return made


def said(observation: Mapping[str, Any], field: str) -> str:
    """Return what a policy is told of an observation: one of its fields, or all of it as JSON if `field` is "".

    Raises ValueError if it has no such field.
    """
    if field and field not in observation:
        raise ValueError(f"the observation has no {field!r}; it has {', '.join(observation) or 'nothing'}")
    whole = {name: value for name, value in observation.items() if name != "metadata"}
    value = observation[field] if field else whole
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()  # JSON may have half of a surrogate pair, which no tokenizer takes


def _faults(data: Mapping[str, Any]) -> list[Any]:
    """Return what is wrong with each field of an action, without what it was given."""
    return [{"field": one.get("loc"), "problem": one.get("msg")} for one in data["errors"] if isinstance(one, Mapping)]
