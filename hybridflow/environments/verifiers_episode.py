"""Episodes of environments of the package verifiers, in which the policy is the model that their harness asks.

Nothing of theirs is replaced: their environment runs an episode as it always does, with its harness, tools, limits and
rewards. Its model is an endpoint of this process (chat_endpoint.py), so each request of the harness is where the
conversation has come to, and the policy's turn is the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from hybridflow.environments.chat_endpoint import Asked, ChatEndpoint
from hybridflow.errors import shown
from hybridflow.tasks import verifiers_task
from hybridflow.tasks.chat_messages import Message

KEY = "HYBRIDFLOW_POLICY_API_KEY"  # verifiers gives programs no variable with API_KEY in its name
MODEL = "policy"
FULL = "context_length_exceeded: this model's maximum context length is used up"
SHAPING = {"n": 1, "logprobs": False, "tool_choice": "auto"} | dict.fromkeys(
    ("stop", "logit_bias", "response_format", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k")
)
"""Settings of a request by which a model writes otherwise, and what goes without saying; the policy writes as the run's
settings say."""

_stages: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[Stage]]] = WeakKeyDictionary()


class Stage:
    """Environment of verifiers with what all its episodes in a process share."""

    def __init__(self, taskset: str, config: Mapping[str, Any]) -> None:
        import verifiers.v1 as vf

        self._made = verifiers_task.env_config(taskset, config)
        self._env = vf.load_environment(self._made)
        self._tasks: list[Any] = []
        self._serving: asyncio.Task[None] | None = None
        self.endpoint = ChatEndpoint()

    async def open(self) -> Stage:
        """Start what episodes share; it ends with the loop."""
        await self.endpoint.start()
        os.environ[KEY] = self.endpoint.key
        started = asyncio.Event()
        self._serving = asyncio.create_task(self._serve(started))
        starting = asyncio.create_task(started.wait())
        await asyncio.wait([starting, self._serving], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            starting.cancel()
            self._serving.result()
        return self

    async def _serve(self, started: asyncio.Event) -> None:
        async with self._env.serving():
            started.set()
            await asyncio.Event().wait()

    def task(self, known: Mapping[str, Any]) -> Any:
        """Return the task of a row. Raises ValueError if the taskset has another in its place."""
        number, key = known["index"], known["key"]
        if number >= len(self._tasks):
            self._tasks = verifiers_task.loaded(self._made, number + 1)
        if number >= len(self._tasks) or self._tasks[number].key != key:
            raise ValueError(
                f"task {number} of the taskset {self._made.taskset.id!r} is another here than the row was made of; "
                "task.options and environment.options must have the same taskset and config, and a taskset must give "
                "the same tasks each time"
            )
        return self._tasks[number]

    async def run(self, task: Any, mint: Any) -> Any:
        """Run an episode; `mint` is told of each agent's trace as it begins."""
        import verifiers.v1 as vf

        client = vf.EvalClientConfig(base_url=self.endpoint.url, api_key_var=KEY)
        context = vf.ModelContext(model=MODEL, client=client)
        return await self._env.run_episode(task, context, on_trace=mint)


async def stage(taskset: str, config: Mapping[str, Any]) -> Stage:
    """Return this process's environment of a taskset, opened once."""

    async def opened() -> Stage:
        return await (await asyncio.to_thread(Stage, taskset, config)).open()

    known = _stages.setdefault(asyncio.get_running_loop(), {})
    name = json.dumps([taskset, config], sort_keys=True)
    if name not in known or (known[name].done() and known[name].exception()):
        known[name] = asyncio.create_task(opened())
    return await asyncio.shield(known[name])  # a row that has no time left ends no other's


class Episode:
    """Episode under way, between the requests of its harness.

    Attributes:
        tools: that the harness offered with its first request.
    """

    def __init__(self, stage: Stage, task: Any) -> None:
        self._stage = stage
        self._queue: asyncio.Queue[Asked] = asyncio.Queue()
        self._traces: dict[str, Any] = {}
        self._asked: Asked | None = None
        self._seen: Sequence[Message] = ()
        self._running = asyncio.create_task(stage.run(task, self._mint))
        self.tools: Sequence[Any] = ()

    async def begin(self) -> list[Message]:
        """Return the messages of the first request. Raises RuntimeError if the episode ends without any."""
        asked = await self._next()
        if asked is None:
            self.outcome()
            raise RuntimeError("the episode ended, and had asked the policy nothing")
        self.tools = asked.body.get("tools") or ()
        self._seen = [_plain(message) for message in asked.body["messages"]]
        return list(asked.body["messages"])

    async def answer(self, message: Message, finish_reason: str, tokens: int, *, last: bool) -> list[Message] | None:
        """Answer the request with a turn of the policy, and return what is said to it; None: the episode is over.

        Args:
            last: there is no other turn, so what is asked for one ends it, as a context that is full.

        Raises ValueError if the next request is not the conversation, gone on with.
        """
        assert self._asked is not None
        self._asked.answer(message, finish_reason, tokens)
        asked = await self._next()
        while last and asked is not None:
            self._traces[asked.session].stop("max_total_tokens")
            asked.refuse(FULL, "context_length_exceeded")
            asked = await self._next()
        if asked is None:
            return None
        before = [*self._seen, _plain(message)]
        now = [_plain(one) for one in asked.body["messages"]]
        if now[: len(before)] != before or len(now) == len(before):
            raise ValueError(_rewritten(before, now))
        self._seen = now
        return list(asked.body["messages"][len(before) :])

    def outcome(self) -> tuple[float, dict[str, float]]:
        """Return the reward of an episode that is over, and its metrics. Raises RuntimeError if it failed."""
        episode = self._running.result()
        if not episode.ok:
            errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
            raise RuntimeError("; ".join(f"{error.type}: {error.message}" for error in errors) or "the episode failed")
        traces = [trace for trace in episode.traces if self._asked and trace.id == self._asked.session]
        if not traces:
            return 0.0, {}
        rewards = {name: given.score for name, given in traces[0].rewards.items() if given is not None}
        metrics = {name: value for name, value in traces[0].metrics.items() if value is not None}
        return traces[0].reward, {**rewards, **metrics}

    async def close(self) -> None:
        """End the episode, if it is not over, with whatever it runs."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        waiting = [self._asked] if self._asked else []
        while not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        for asked in waiting:  # whoever asked has gone; what waits here for an answer must not wait for ever
            asked.refuse("the conversation is over")
        for session in self._traces:
            self._stage.endpoint.close(session)

    def _mint(self, trace: Any) -> None:
        self._traces[trace.id] = trace
        self._stage.endpoint.open(trace.id, self._queue)

    async def _next(self) -> Asked | None:
        """Wait for the next request; None: the episode is over. Raises ValueError for one that no turn can answer."""
        asking = asyncio.create_task(self._queue.get())
        try:
            await asyncio.wait([asking, self._running], return_when=asyncio.FIRST_COMPLETED)
            asked = asking.result() if asking.done() else None
        finally:
            asking.cancel()
        if asked is None:
            return None
        if self._asked is not None and asked.session != self._asked.session:
            raise ValueError(
                "a second agent of the environment asks the policy, and a row is one conversation; give the other "
                "agent a client and a model of its own in environment.options.config"
            )
        if odd := [name for name, plain in SHAPING.items() if asked.body.get(name) not in (None, plain)]:
            raise ValueError(
                f"the harness asks for {odd[0]}={shown(asked.body[odd[0]])}, and the policy's turns are sampled as the "
                "run's settings say; leave it out of the environment's sampling"
            )
        self._asked = asked
        return asked


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a message a chat template writes, in one form."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    calls = [
        (call["function"]["name"], _arguments(call["function"]["arguments"]))
        for call in message.get("tool_calls") or []
    ]
    return {"role": message.get("role"), "content": content or "", "calls": calls}


def _arguments(written: Any) -> Any:
    try:
        return json.loads(written) if isinstance(written, str) else written
    except ValueError:
        return written


def _rewritten(before: Sequence[Message], now: Sequence[Message]) -> str:
    if len(now) <= len(before):
        return (
            f"the harness asks again with {len(now)} messages after a conversation of {len(before)}: it went back, or "
            "summed up what came before, and the policy would learn from tokens that it did not see"
        )
    place = next(number for number, (one, other) in enumerate(zip(before, now, strict=False)) if one != other)
    return (
        f"the harness changed message {place} of the conversation: {shown(before[place])} became {shown(now[place])}; "
        "the policy would learn from tokens that it did not see"
    )
