"""Loop of a generation replica whose rows are conversations, and what all ranks of the replica share for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from hybridflow.batch import Batch
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.generation_session import Request
from hybridflow.engines.sampling import FinishedRow, Sampling
from hybridflow.workers.conversation_session import ConversationSession
from hybridflow.workers.environment_asker import EnvironmentAsker, Event
from hybridflow.workers.worker import Context

HEARTBEAT_S = 5.0  # in which a leader that hears nothing says so: other ranks wait for it in a collective


class ConversationLoop:
    """Conversations of this rank's replica. All ranks of the role's pool make theirs at the same time.

    One rank of the replica, its leader, asks the environments; what it heard it tells the others, so that all ranks
    give the engine the same rows in the same order.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        replica = context.layout.generation_coordinate(context.rank).dp
        ranks = context.layout.replica_ranks[replica]
        self._leader = ranks[0]
        self._group = _group(context) if len(ranks) > 1 else None
        self._asker = EnvironmentAsker(context) if context.rank == self._leader else None

    def session(self, generator: GenerationEngine, answer_s: float) -> ConversationSession:
        """Begin a session of the engine whose rows are conversations; see `ConversationSession`.

        Raises RuntimeError as `GenerationEngine.session`.
        """
        settings = self._context.config.environment
        return ConversationSession(generator.session(), settings, self._asker, self._told, answer_s)

    def stream(
        self, generator: GenerationEngine, prompts: Batch, sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[list[FinishedRow]]:
        """Yield rows as their conversations end; `sampling.max_tokens` is of a whole conversation.

        Raises HybridFlowError if the environments' process cannot be started, and as `GenerationEngine.stream`.
        """
        rows = enumerate(zip(prompts.ragged("prompt_ids"), seeds, strict=True))
        with self.session(generator, HEARTBEAT_S) as session:
            session.begin(prompts, [Request(row, prompt, sampling, seed) for row, (prompt, seed) in rows])
            while session.pending:
                if over := session.advance():
                    yield over
        self._context.metrics.max("timing_s/environment", session.waited)

    def close(self) -> None:
        """End the environments' processes."""
        if self._asker:
            self._asker.close()

    def _told(self, heard: list[Event]) -> list[Event]:
        """Return what the leader has heard, on all ranks of the replica."""
        return heard if self._group is None else _shared(heard, self._group, self._leader)


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
