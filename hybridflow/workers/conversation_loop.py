"""Loop of a generation replica whose rows are conversations.

Each conversation goes on by itself: while one waits for its environment, the engine computes the others. One rank of
the replica, its leader, asks the environments; what it heard it tells the others, so that all ranks give the engine
the same rows in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from time import perf_counter

import numpy as np
import torch
import torch.distributed as dist

from hybridflow.batch import Batch
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.generation_session import Request, Session
from hybridflow.engines.sampling import LENGTH, FinishedRow, Sampling
from hybridflow.environments.conversation import Conversation, Limits, turn_seed
from hybridflow.workers.environment_asker import EnvironmentAsker, Event
from hybridflow.workers.worker import Context


class ConversationLoop:
    """Conversations of this rank's replica. All ranks of the role's pool make theirs at the same time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.config.environment
        replica = context.layout.generation_coordinate(context.rank).dp
        ranks = context.layout.replica_ranks[replica]
        self._leader = ranks[0]
        self._group = _group(context) if len(ranks) > 1 else None
        self._asker = EnvironmentAsker(context) if context.rank == self._leader else None
        self._waited = 0.0

    def stream(
        self, generator: GenerationEngine, prompts: Batch, sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[list[FinishedRow]]:
        """Yield rows as their conversations end; `sampling.max_tokens` is of a whole conversation.

        Raises HybridFlowError if the environments' process cannot be started, and as `GenerationEngine.stream`.
        """
        most = sampling.max_tokens
        limits = Limits(self._settings.max_turns, most, min(self._settings.max_turn_tokens or most, most))
        rows = enumerate(prompts.ragged("prompt_ids"))
        talks = {row: Conversation(row, prompt.tolist(), limits) for row, prompt in rows}
        self._waited = 0.0
        try:
            if self._asker:
                self._asker.begin(prompts, seeds)
            with generator.session() as session:
                session.submit([_request(talk, sampling, seeds) for talk in talks.values()])
                while talks:
                    self._advance(session, talks)
                    yield from self._go_on(session, talks, sampling, seeds)
        finally:
            if self._asker:
                self._asker.finish()
        self._context.metrics.max("timing_s/environment", self._waited)

    def close(self) -> None:
        """End the environments' processes."""
        if self._asker:
            self._asker.close()

    def _advance(self, session: Session, talks: dict[int, Conversation]) -> None:
        """Let the engine go on, and ask about turns that it has finished."""
        for row in session.advance() if session.pending else ():
            talk = talks[row.row]
            talk.wrote(row.tokens.tolist(), row.log_probs.tolist(), cut=row.ended_by == LENGTH)
            talk.cached_tokens += row.cached_tokens
            if self._asker:
                self._asker.ask(talk, row.ended_by)

    def _go_on(
        self, session: Session, talks: dict[int, Conversation], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[list[FinishedRow]]:
        """Take in what environments have answered: conversations go on, or their rows are yielded."""
        if session.pending and self._settings.in_step:
            return
        over: list[FinishedRow] = []
        next_turns: list[Request] = []
        for row, *told in self._events(wait=not session.pending):
            talk = talks[row]
            _take_in(talk, *told)
            if talk.ended_by:
                over.append(_finished(talks.pop(row)))
            else:
                next_turns.append(_request(talk, sampling, seeds))
        session.submit(next_turns)
        if over and self._asker:
            self._asker.finish([row.row for row in over])
        if over:
            yield over

    def _events(self, *, wait: bool) -> list[Event]:
        """Return what the leader has heard, on all ranks of the replica."""
        start = perf_counter()
        heard = self._asker.heard(wait=wait, together=self._settings.in_step) if self._asker else []
        events = heard if self._group is None else _shared(heard, self._group, self._leader)
        self._waited += perf_counter() - start if wait else 0.0
        return events


def _group(context: Context) -> dist.ProcessGroup:
    """Make the process groups of all replicas, and return this one's. It carries JSON, so it is gloo's anywhere."""
    timeout = timedelta(seconds=context.config.trainer.collective_timeout_s)
    mine = None
    for ranks in context.layout.replica_ranks:
        made = dist.new_group(ranks, backend="gloo", timeout=timeout)
        mine = made if context.rank in ranks else mine
    assert mine is not None
    return mine


def _shared(events: list[Event], group: dist.ProcessGroup, leader: int) -> list[Event]:
    """Return the leader's events."""
    body = np.frombuffer(json.dumps(events).encode("ascii"), dtype=np.uint8).copy()
    size = torch.tensor([len(body)])
    dist.broadcast(size, leader, group=group)
    told = torch.from_numpy(body) if dist.get_rank() == leader else torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(told, leader, group=group)
    leaders: list[Event] = json.loads(told.numpy().tobytes())
    return leaders


def _take_in(talk: Conversation, *told: object) -> None:
    """Take in an event; see `Event`."""
    if len(told) == 1:
        talk.failed(str(told[0]))
        return
    between, reward, done, metrics = told
    talk.answered(between, reward, done=done, metrics=metrics)  # type: ignore[arg-type]


def _request(talk: Conversation, sampling: Sampling, seeds: Sequence[int]) -> Request:
    """Return the next turn of a conversation as an engine is asked for it."""
    prompt = np.array([*talk.prompt, *talk.tokens], dtype=np.int64)
    seed = turn_seed(seeds[talk.row], talk.turns)
    return Request(talk.row, prompt, replace(sampling, max_tokens=talk.room), seed)


def _finished(talk: Conversation) -> FinishedRow:
    return FinishedRow(
        talk.row,
        np.array(talk.tokens, dtype=np.int64),
        np.array(talk.log_probs, dtype=np.float32),
        talk.ended_by,
        talk.cached_tokens,
        talk.record(),
    )
