"""Chat completions of OpenAI's interface, on this machine alone, whose answers are turns of the policy.

A program that asks a model is thereby an environment: what it asks is where a conversation has come to, and what the
policy writes is the answer that it waits for.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

LARGEST = 64 << 20  # bytes of a request
SESSION = "X-Session-ID"  # the header that names the conversation


@dataclass(frozen=True)
class Asked:
    """Request that waits for an answer.

    Attributes:
        session: the conversation that it names.
        body: as it was sent.
    """

    session: str
    body: Mapping[str, Any]
    reply: asyncio.Future[tuple[int, Mapping[str, Any]]] = field(repr=False)

    def answer(self, message: Mapping[str, Any], finish_reason: str, tokens: int) -> None:
        """Answer with a message of the assistant."""
        completion = {
            "id": f"turn-{secrets.token_hex(8)}",
            "object": "chat.completion",
            "created": 0,
            "model": self.body.get("model") or "",
            "choices": [{"index": 0, "message": dict(message), "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
        }
        self._done(200, completion)

    def refuse(self, why: str, code: str = "invalid_request_error") -> None:
        """Answer that there is no turn."""
        self._done(400, {"error": {"message": why, "type": "invalid_request_error", "code": code}})

    def _done(self, status: int, body: Mapping[str, Any]) -> None:
        if not self.reply.done():  # whoever asked may have gone
            self.reply.set_result((status, body))


class ChatEndpoint:
    """Endpoint with the conversations of a process, each of which has a queue of what it was asked.

    Attributes:
        url: to ask at, once it has started.
        key: the bearer token that it wants.
    """

    def __init__(self) -> None:
        self.url = ""
        self.key = secrets.token_urlsafe(24)
        self._queues: dict[str, asyncio.Queue[Asked]] = {}

    async def start(self) -> None:
        """Listen on the loopback interface; it ends with the process."""
        from aiohttp import web

        app = web.Application(client_max_size=LARGEST)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, port = runner.addresses[0][:2]
        self.url = f"http://127.0.0.1:{port}/v1"

    def open(self, session: str, queue: asyncio.Queue[Asked]) -> None:
        """Let a conversation ask."""
        self._queues[session] = queue

    def close(self, session: str) -> None:
        """Forget a conversation; what it asks from now on is refused."""
        self._queues.pop(session, None)

    async def _complete(self, request: web.Request) -> web.Response:
        from aiohttp import web

        if not secrets.compare_digest(request.headers.get("Authorization", ""), f"Bearer {self.key}"):
            return web.json_response({"error": {"message": "unauthorized"}}, status=401)
        session = request.headers.get(SESSION, "")
        queue = self._queues.get(session)
        if queue is None:
            return web.json_response({"error": {"message": "there is no such conversation"}}, status=404)
        asked = Asked(session, await request.json(), asyncio.get_running_loop().create_future())
        queue.put_nowait(asked)
        status, body = await asked.reply
        if status == 200 and asked.body.get("stream"):
            return web.Response(body=_events(body), content_type="text/event-stream")
        return web.json_response(body, status=status)


def _events(completion: Mapping[str, Any]) -> bytes:
    """Return a completion as a stream of one piece."""
    choice = completion["choices"][0]
    message = dict(choice["message"])
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
    piece = {
        **completion,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": message, "finish_reason": choice["finish_reason"]}],
    }
    return f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode()
