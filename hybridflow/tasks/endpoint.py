"""Endpoint of HTTP that graders ask: one address, with a deadline, retries, and an answer in JSON. No redirects."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hybridflow.errors import HybridFlowError, shown

if TYPE_CHECKING:
    from httpx import AsyncClient

BUSY = frozenset({408, 429, 500, 502, 503, 504})
LARGEST = 16 << 20  # bytes of an answer: one without an end would fill the memory before its time is up
FIRST_WAIT_S = 0.5  # before the second try; twice as long before each further one


class Endpoint:
    """Asks one address with POST.

    Args:
        url: the address; nothing else is ever called, as redirects and proxies of the environment are not followed.
        timeout_s: seconds that a try may take.
        retries: tries after the first, for a connection that fails and a server that is busy.
        token_env: the name of an environment variable with a token that the server wants; "": none.

    Raises ValueError for what is no address of HTTP, HybridFlowError if there is no such variable.
    """

    def __init__(self, url: str, timeout_s: float, retries: int, token_env: str = "") -> None:
        if not is_address(url):
            raise ValueError(f"url: {shown(url)} given; an address was expected, as http://127.0.0.1:8000/grade")
        if token_env and not os.environ.get(token_env):
            raise HybridFlowError(f"token_env: the environment has no {token_env}, which is to have the token of {url}")
        self._url = url
        self._timeout_s = timeout_s
        self._retries = retries
        self._token_env = token_env
        self._client: AsyncClient | None = None

    async def ask(self, question: Mapping[str, Any]) -> Any:
        """Return the answer to a question, both JSON. Raises ValueError naming what went wrong at the last try."""
        for number in range(self._retries + 1):
            if number:
                await asyncio.sleep(FIRST_WAIT_S * 2 ** (number - 1))
            problem, answer = await self._try(question)
            if problem is None:
                return answer
            if problem[1] is False:
                break
        assert problem is not None
        raise ValueError(f"{self._url}: {problem[0]}")

    async def _try(self, question: Mapping[str, Any]) -> tuple[tuple[str, bool] | None, Any]:
        """Return what went wrong and whether another try may help, or the answer."""
        import httpx

        if self._client is None:  # made where the loop runs that all rows share
            self._client = httpx.AsyncClient(timeout=self._timeout_s, trust_env=False, follow_redirects=False)
        token = os.environ.get(self._token_env, "") if self._token_env else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._url, json=question, headers=headers) as reply,
            ):
                body = bytearray()
                async for piece in reply.aiter_bytes():
                    body += piece
                    if len(body) > LARGEST:
                        return (f"an answer of more than {LARGEST} bytes", False), None
        except TimeoutError:
            return (f"no answer within {self._timeout_s:g} s", True), None
        except httpx.HTTPError as error:
            return (f"{type(error).__name__}: {error}", True), None
        if reply.status_code != httpx.codes.OK:
            said = f"status {reply.status_code}, 200 was expected: {_text(body)}"
            return (said, reply.status_code in BUSY), None
        try:
            return None, json.loads(body)
        except (ValueError, RecursionError):
            return (f"no JSON: {_text(body)}", False), None


def _text(body: bytearray) -> str:
    return shown(body.decode(errors="replace"))


def is_address(url: object) -> bool:
    """Tell whether it is an address of HTTP; of what is none, `urlsplit` and its port raise ValueError."""
    if not isinstance(url, str) or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
