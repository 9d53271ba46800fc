"""Process that environments run in: `python -m hybridflow.environments.environment_child CHANNEL PLACE LIFELINE`.

It is told once which environment, then of conversations: that one begins, what the policy said, that one is over. Each
goes on by itself, in the order in which it was told; an answer is sent as soon as there is one.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from hybridflow.environments.environment import (
    Action,
    Environment,
    Question,
    environments,
    make,
    refuse_said,
    sound_observation,
)
from hybridflow.tasks.child_main import FAULTS, described, find, serve
from hybridflow.tasks.grading_channel import Channel, Place

THREADS = 256  # of plain functions that run at the same time


def main() -> None:
    """Serve a rank."""
    serve(lambda channel, place, told: EnvironmentServer(channel, place, told).run)


class EnvironmentServer:
    """Conversations of a process.

    Args:
        told: `plugins`, `environment` as (name, module, options) and `deadline_s`.
    """

    def __init__(self, channel: Channel, place: Place, told: Mapping[str, Any]) -> None:
        self._channel = channel
        self._pid = os.getpid()
        name, module, self._options = told["environment"]
        find(environments, name, module, told["plugins"])
        make(name, self._options)  # what is wrong with it is told now
        self._name: str = name
        self._deadline_s: float = told["deadline_s"]
        self._inboxes: dict[int, asyncio.Queue[list[Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Serve until the rank closes its end. Raises EOFError then."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS))
        over: asyncio.Future[None] = loop.create_future()

        def read() -> None:
            try:
                while True:
                    loop.call_soon_threadsafe(self._take, self._channel.receive())
            except EOFError as error:
                loop.call_soon_threadsafe(over.set_exception, error)

        threading.Thread(target=read, daemon=True).start()
        await over

    def _take(self, message: list[Any]) -> None:
        """Hand a message to its conversation; the first one begins it."""
        event, number, *fields = message
        if number not in self._inboxes:
            self._inboxes[number] = asyncio.Queue()
            task = asyncio.create_task(self._converse(number, self._inboxes[number]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._inboxes[number].put_nowait([event, *fields])

    async def _converse(self, number: int, inbox: asyncio.Queue[list[Any]]) -> None:
        """Serve a conversation until it is over. Once it has failed, every step is answered by that."""
        environment: Environment | None = None
        failed: list[Any] = []
        while True:
            event, *fields = await inbox.get()
            if event == "close":
                break
            said: list[Any] = []
            limit = asyncio.timeout(self._deadline_s)
            try:
                async with limit:
                    if event == "reset":
                        environment = make(self._name, self._options)
                        refuse_said(await _called(environment.reset, Question(*fields)))
                    elif not failed:
                        assert environment is not None
                        said = _said(number, environment, await _called(environment.step, Action(*fields)))
            except FAULTS as error:
                failed = ["late", number] if limit.expired() else ["failed", number, *described(error)]
            if os.getpid() != self._pid:  # an environment that forked comes back twice
                os._exit(1)
            if event == "step":
                self._send(number, failed or said)
        del self._inboxes[number]
        if environment is not None:
            with suppress(*FAULTS):  # it has said all that it had to say
                async with asyncio.timeout(self._deadline_s):
                    await _called(environment.close)

    def _send(self, number: int, answer: list[Any]) -> None:
        """Send an answer; if JSON cannot express it, that."""
        try:
            self._channel.send(answer)
        except (TypeError, ValueError, RecursionError) as error:  # before anything of it was sent
            self._channel.send(["failed", number, *described(error)])


def _said(number: int, environment: Environment, given: object) -> list[Any]:
    """Return what to say of an observation."""
    seen = sound_observation(environment, given)
    return ["observed", number, list(seen.messages), seen.reward, seen.done, dict(seen.metrics)]


async def _called(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method, a plain one in a thread; what it gives may be an awaitable still, as a decorator's."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments)
    given = await asyncio.to_thread(method, *arguments)
    return await given if inspect.isawaitable(given) else given


if __name__ == "__main__":
    main()
