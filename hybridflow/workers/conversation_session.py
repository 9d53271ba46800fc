"""ConversationSession: rows under way in a generation engine that are conversations, turn after turn.

Each conversation goes on by itself: while one waits for its environment, the engine computes the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import EnvironmentConfig
from hybridflow.engines.generation_session import Request, Session
from hybridflow.engines.sampling import LENGTH, FinishedRow, Sampling
from hybridflow.environments.conversation import Conversation, Limits, turn_seed
from hybridflow.workers.environment_asker import EnvironmentAsker, Event


@dataclass(frozen=True)
class _UnderWay:
    """Conversation under way, and how it is sampled; `seed`: of its first turn."""

    talk: Conversation
    sampling: Sampling
    seed: int

    def request(self) -> Request:
        """Return the next turn as an engine is asked for it."""
        talk = self.talk
        prompt = np.array([*talk.prompt, *talk.tokens], dtype=np.int64)
        return Request(talk.row, prompt, replace(self.sampling, max_tokens=talk.room), turn_seed(self.seed, talk.turns))


class ConversationSession(Session):
    """Conversations under way on this rank. All ranks of a replica make the same calls in the same order.

    Args:
        session: of the engine, whose rows are turns.
        asker: of the environments; None on ranks that do not ask them.
        told: gives all ranks of the replica the events that its leader heard.
        answer_s: seconds that `advance` waits for an answer, at most, if the engine has nothing to compute.
    """

    def __init__(
        self,
        session: Session,
        settings: EnvironmentConfig,
        asker: EnvironmentAsker | None,
        told: Callable[[list[Event]], list[Event]],
        answer_s: float,
    ) -> None:
        self._session = session
        self._settings = settings
        self._asker = asker
        self._told = told
        self._answer_s = answer_s
        self._rows: dict[int, _UnderWay] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        self.begin(Batch(prompt_ids=Ragged.of([one.prompt for one in requests], np.int64)), requests)

    def begin(self, rows: Batch, requests: Sequence[Request]) -> None:
        """Begin conversations; `max_tokens` is of a whole one."""
        for one in requests:
            most = one.sampling.max_tokens
            limits = Limits(self._settings.max_turns, most, min(self._settings.max_turn_tokens or most, most))
            talk = Conversation(one.row, one.prompt.tolist(), limits)
            self._rows[one.row] = _UnderWay(talk, one.sampling, one.seed)
        if self._asker:
            self._asker.begin(rows, [one.row for one in requests], [one.seed for one in requests])
        self._session.submit([self._rows[one.row].request() for one in requests])

    def advance(self) -> list[FinishedRow]:
        """Let the engine go on, and take in what environments have answered; return the conversations that are over."""
        for row in self._session.advance() if self._session.pending else ():
            talk = self._rows[row.row].talk
            talk.wrote(row.tokens.tolist(), row.log_probs.tolist(), cut=row.ended_by == LENGTH)
            talk.cached_tokens += row.cached_tokens
            if self._asker:
                self._asker.ask(talk, row.ended_by)
        return self._go_on()

    def abort(self, rows: Collection[int]) -> None:
        known = [row for row in rows if row in self._rows]
        self._session.abort(known)
        self._forget(known)

    def written(self) -> dict[int, int]:
        """Return how many tokens each conversation has, of both sides, by its row."""
        turns = self._session.written()
        return {row: len(one.talk.tokens) + turns.get(row, 0) for row, one in self._rows.items()}

    def renewing(self, *, keeps_cache: bool) -> AbstractContextManager[None]:
        return self._session.renewing(keeps_cache=keeps_cache)

    @property
    def pending(self) -> bool:
        return bool(self._rows)

    @property
    def computes(self) -> bool:
        return self._session.pending

    def close(self) -> None:
        self._forget([*self._rows])
        self._session.close()

    def _go_on(self) -> list[FinishedRow]:
        """Take in what environments have answered: conversations go on, or are over."""
        if self._session.pending and self._settings.in_step:
            return []
        over: list[FinishedRow] = []
        next_turns: list[Request] = []
        for row, *told in self._events():
            one = self._rows[row]
            _take_in(one.talk, *told)
            if one.talk.ended_by:
                over.append(_finished(one.talk))
            else:
                next_turns.append(one.request())
        self._session.submit(next_turns)
        self._forget([row.row for row in over])
        return over

    def _events(self) -> list[Event]:
        """Return what environments have answered, alike on all ranks of the replica."""
        waits = not self._session.pending
        start = perf_counter()
        together = self._settings.in_step
        heard = self._asker.heard(wait_s=self._answer_s if waits else 0.0, together=together) if self._asker else []
        events = self._told(heard)
        self.waited += perf_counter() - start if waits else 0.0
        return events

    def _forget(self, rows: Sequence[int]) -> None:
        for row in rows:
            del self._rows[row]
        if self._asker:
            self._asker.finish(rows)


def _take_in(talk: Conversation, *told: object) -> None:
    """Take in an event; see `Event`."""
    if len(told) == 1:
        talk.failed(str(told[0]))
        return
    between, reward, done, metrics = told
    talk.answered(between, reward, done=done, metrics=metrics)  # type: ignore[arg-type]


def _finished(talk: Conversation) -> FinishedRow:
    return FinishedRow(
        talk.row,
        np.array(talk.tokens, dtype=np.int64),
        np.array(talk.log_probs, dtype=np.float32),
        talk.ended_by,
        talk.cached_tokens,
        talk.record(),
    )
