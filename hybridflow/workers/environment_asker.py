"""Environments of a replica's conversations, as its leader asks them; what they answer becomes events of rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

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
HEARTBEAT_S = 5.0  # in which a leader that hears nothing says so: other ranks wait for it in a collective
SEEDS = 1 << 53  # above it JSON's readers may round
KNOWN = ("answer", "source", "sample_id")
CHATS = ("messages", "metadata")

Event = list[Any]
"""A row, and why its environment failed; or tokens up to the next turn, the reward, whether it is done, and metrics."""


class EnvironmentAsker:
    """Environments of this rank's conversations, which are its rows' numbers in a call."""

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
        self._first = 0  # the pool's number of row 0: an answer to an earlier call is of nobody's row
        self._rows = 0
        self._chats: list[bool] = []
        self._open: set[int] = set()
        self._asked: dict[int, Conversation] = {}
        self._answers: list[tuple[int, Observation | Failure]] = []
        self._failures = 0

    def begin(self, prompts: Batch, seeds: Sequence[int]) -> None:
        """Begin the conversations of rows."""
        self._first += self._rows
        self._rows = len(prompts)
        self._chats = []
        for row, seed in enumerate(seeds):
            question = self._question(prompts, row, seed % SEEDS)
            self._chats.append(bool(question.messages))
            self._pool.reset(self._first + row, question)
            self._open.add(row)

    def ask(self, talk: Conversation, finish_reason: str) -> None:
        """Ask for the answer to a conversation's last turn."""
        tokens = talk.turn_tokens
        raw = self._decode_raw(tokens)
        calls = self._calls.calls(raw) if self._calls else []
        beside = self._calls.beside(raw) if self._calls and calls else ""
        said = self._decode(tokens), raw, talk.turns - 1, len(tokens), finish_reason, calls, beside, talk.had_its_turns
        action = Action(*said)
        self._asked[talk.row] = talk
        self._pool.step(self._first + talk.row, action)

    def heard(self, *, wait: bool, together: bool) -> list[Event]:
        """Return what has been answered, in the order of rows.

        Args:
            wait: for the first answer, some seconds at most.
            together: no answer is returned until all that were asked have answered.
        """
        self._answers += self._pool.poll(HEARTBEAT_S if wait else 0.0)
        if together and len(self._answers) < len(self._asked):
            return []
        answers = sorted(self._answers, key=lambda pair: pair[0])
        self._answers = []
        return [self._event(self._asked.pop(number - self._first), answer) for number, answer in answers]

    def finish(self, rows: Sequence[int] | None = None) -> None:
        """End conversations; None: all, as of a call that is given up."""
        for row in sorted(self._open) if rows is None else rows:
            self._open.discard(row)
            self._asked.pop(row, None)
            self._pool.finish(self._first + row)
        if rows is None:
            self._answers = []

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
                renderer = self._renderers[self._chats[talk.row]]
                said = answer.messages  # of messages only: a text has become one on its way
                between = renderer.between(talk.turn_tokens, said) if said and not isinstance(said, str) else []
                return [talk.row, between, answer.reward, answer.done, dict(answer.metrics)]
            except ValueError as error:  # what the template does not take, or has no tokens
                answer = Failure("raised", str(error))
        self._failures += 1
        if self._failures == 1:  # all are counted; one shows where to look
            log.warning("the environment failed in row %d: %s\n%s", talk.row, in_words(answer), answer.trace)
        return [talk.row, in_words(answer)]


def in_words(failure: Failure) -> str:
    """Return what happened to an environment in a line."""
    return {
        "raised": failure.problem,
        "late": "it gave no answer within environment.step_deadline_s",
        "lost": f"its process is gone: {failure.problem}",
    }[failure.kind]
