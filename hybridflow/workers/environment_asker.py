"""Environments of a replica's conversations, as its leader asks them; what they answer becomes events of rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from hybridflow.batch import Batch
from hybridflow.environments.conversation import Conversation
from hybridflow.environments.conversation_settings import TOOL, conversation_options
from hybridflow.environments.environment import Action, Observation, Question, environments
from hybridflow.environments.environment_pool import EnvironmentOrder, EnvironmentPool, Failure
from hybridflow.environments.tool_calls import find_format
from hybridflow.environments.turn_renderer import TurnRenderer
from hybridflow.tasks.chat_settings import chat_form
from hybridflow.tasks.encoder import Encoder
from hybridflow.tasks.tokenizer import load_decoder, load_tokenizer
from hybridflow.workers.worker import Context

log = logging.getLogger(__name__)
SEEDS = 1 << 53  # above it JSON's readers may round
KNOWN = ("answer", "source", "sample_id")
CHATS = ("messages", "metadata")

Event = list[Any]
"""A row, and why its environment failed; or tokens up to the next turn, the reward, whether it is done, and metrics."""


class _Open(NamedTuple):
    """Conversation that has an environment: its number in the pool, and whether its prompt is a chat."""

    number: int
    chat: bool


class EnvironmentAsker:
    """Environments of this rank's conversations, each known by the number of its row while it is under way."""

    def __init__(self, context: Context) -> None:
        config = context.config
        own = config.environment
        folder = config.actor.model.path
        self._decode = load_decoder(folder)
        self._decode_raw = load_decoder(folder, special_tokens=True)
        encoder = Encoder(load_tokenizer(folder), conversation_options(config.task, own), chat_form(config.task))
        self._calls = find_format(encoder.template) if TOOL in environments.get(own.name).roles else None
        self._renderers = {chat: TurnRenderer(encoder, chat=chat) for chat in (False, True)}
        order = EnvironmentOrder(own.name, own.options, config.plugins, own.step_deadline_s, own.processes)
        self._pool = EnvironmentPool(order)
        self._next = 0  # the pool's number of the next conversation: no two ever have the same
        self._open: dict[int, _Open] = {}
        self._asked: dict[int, Conversation] = {}
        self._answers: list[tuple[int, Observation | Failure]] = []
        self._failures = 0

    def begin(self, prompts: Batch, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin conversations, which are known by these numbers of rows until they are finished."""
        for place, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            question = self._question(prompts, place, seed % SEEDS)
            self._open[row] = _Open(self._next, chat=bool(question.messages))
            self._pool.reset(self._next, question)
            self._next += 1

    def ask(self, talk: Conversation, finish_reason: str) -> None:
        """Ask for the answer to a conversation's last turn."""
        tokens = talk.turn_tokens
        raw = self._decode_raw(tokens)
        calls = self._calls.calls(raw) if self._calls else []
        beside = self._calls.beside(raw) if self._calls and calls else ""
        said = self._decode(tokens), raw, talk.turns - 1, len(tokens), finish_reason, calls, beside, talk.had_its_turns
        action = Action(*said)
        number = self._open[talk.row].number
        self._asked[number] = talk
        self._pool.step(number, action)

    def heard(self, *, wait_s: float, together: bool) -> list[Event]:
        """Return what has been answered, in the order in which conversations began.

        Args:
            wait_s: for the first answer, so many seconds at most.
            together: no answer is returned until all that were asked have answered.
        """
        self._answers += self._pool.poll(wait_s)
        if together and len(self._answers) < len(self._asked):
            return []
        answers = sorted(self._answers, key=lambda pair: pair[0])
        self._answers = []
        return [self._event(self._asked.pop(number), answer) for number, answer in answers]

    def finish(self, rows: Sequence[int]) -> None:
        """End conversations, whether they are over or given up; those that never began are none."""
        ended = {self._open.pop(row).number for row in rows if row in self._open}
        self._answers = [(number, answer) for number, answer in self._answers if number not in ended]
        for number in sorted(ended):
            self._asked.pop(number, None)
            self._pool.finish(number)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def _question(self, prompts: Batch, row: int, seed: int) -> Question:
        known = {name: prompts.dense(name)[row] for name in KNOWN if name in prompts}
        known = {name: value.item() if hasattr(value, "item") else value for name, value in known.items()}
        known |= {name: json.loads(prompts.dense(name)[row] or "null") for name in CHATS if name in prompts}
        given = {name: value for name, value in known.items() if value is not None}
        return Question(self._decode(prompts.ragged("prompt_ids")[row].tolist()), seed=seed, **given)

    def _event(self, talk: Conversation, answer: Observation | Failure) -> Event:
        if not isinstance(answer, Failure):
            try:
                renderer = self._renderers[self._open[talk.row].chat]
                said = answer.messages  # of messages only: a text has become one on its way
                between = renderer.between(talk.turn_tokens, said) if said and not isinstance(said, str) else []
                return [talk.row, between, answer.reward, answer.done, dict(answer.metrics)]
            except ValueError as error:  # what the template does not take, or has no tokens
                answer = Failure("raised", str(error))
        self._failures += 1
        if self._failures == 1:  # all are counted; one shows where to look
            log.warning("the environment failed in row %d: %s\n%s", talk.row, failure_line(answer), answer.trace)
        return [talk.row, failure_line(answer)]


def failure_line(failure: Failure) -> str:
    """Return what happened to an environment in a line."""
    return {
        "raised": failure.problem,
        "late": "it gave no answer within environment.step_deadline_s",
        "lost": f"its process is gone: {failure.problem}",
    }[failure.kind]
