"""DisaggregatedActor: the actor of a run whose generation has a pool of its own. For an algorithm it is one role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.joining import concat
from hybridflow.controller import put
from hybridflow.scheduling.lent_slots import spread


class RowSource(Protocol):
    """Source of sampled rows that a schedule puts in the place of calls on generation."""

    def sampled(self, prompts: BatchRef, options: Mapping[str, Any]) -> BatchRef | None:
        """Return what `generate_sequences` is to give for these rows; None: the call is to be made."""

    def rest(self) -> None:
        """Bring what is under way to an end: calls on generation follow that are none of a step's."""


class DisaggregatedActor:
    """Actor's group, but for what generates: that is the rollout's, once it has the newest weights.

    The calls of a weight sync return at once, like all others. Every call that samples makes them, for only the ranks
    know their versions; where these agree, nothing travels. A schedule that overlaps learning with generation makes
    them itself.

    Args:
        lends: the actor's slots generate too: each call that samples is spread over the replicas of both, and their
            engines take the actor's own weights once they are called.
    """

    def __init__(self, actor: Any, rollout: Any, *, lends: bool = False) -> None:
        self._actor = actor
        self.rollout_group = rollout
        self.row_source: RowSource | None = None
        self.lent_group = actor if lends else None
        self._syncs = True
        self._rank_ids = [put(Batch(rank_id=np.arange(group.layout.size))) for group in (actor, rollout)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._actor, name)

    def connect(self, meeting: str) -> None:
        """Make the two pools meet. Raises RoleError if they cannot, or if their plan cannot be made."""
        self.row_source = None  # after a failure nobody reports on the calls that it waits for
        layouts = self._actor.layout, self.rollout_group.layout
        for call in [group.connect(meeting, *layouts) for group in (self._actor, self.rollout_group)]:
            call.get()

    def sync_weights(self) -> None:
        """Give generation the newest weights, unless it has them."""
        if self.row_source is not None:
            self.row_source.rest()
        self.sync_in_flight()

    def sync_in_flight(self) -> None:
        """Give generation the newest weights, also while rows are under way."""
        offered = self._actor.report_version(self._rank_ids[0])
        rollout_versions = self.rollout_group.report_version(self._rank_ids[1])
        self._actor.send_weights(rollout_versions)
        self.rollout_group.receive_weights(offered)

    @contextmanager
    def weights_as_synced(self) -> Iterator[None]:
        """Let calls that sample, while this is open, have the weights that generation was given last.

        So a schedule can sample while the actor learns: newer weights would be there only after it.
        """
        self._syncs = False
        try:
            yield
        finally:
            self._syncs = True

    def _sync_if_due(self) -> None:
        if self._syncs:
            self.sync_weights()

    def generate_sequences(self, prompts: BatchRef, **options: Any) -> BatchRef:
        """Sample as `ActorRole` says, on the rollout's ranks."""
        if self.row_source is not None and (sampled := self.row_source.sampled(prompts, options)) is not None:
            return sampled
        self._sync_if_due()
        parts = [group.generate_sequences(rows, **options) for group, rows in self._spread(prompts)]
        rows: BatchRef = parts[0] if len(parts) == 1 else concat(parts)
        return rows

    def stream_sequences(self, prompts: BatchRef, **options: Any) -> Any:
        """Sample as `ActorRole` says, on the rollout's ranks."""
        if self.row_source is not None and (sampled := self.row_source.sampled(prompts, options)) is not None:
            rows = np.arange(len(prompts))
            return iter([(rows, sampled.with_origin(rows))])
        self._sync_if_due()
        sides = self._spread(prompts)
        streams = [group.stream_sequences(rows, **options) for group, rows in sides]
        return streams[0] if len(streams) == 1 else streams[0].beside(streams[1], len(sides[0][1]))

    def _spread(self, prompts: BatchRef) -> list[tuple[Any, BatchRef]]:
        """Return the groups that sample these rows, and which of them each does."""
        if self.lent_group is None:
            return [(self.rollout_group, prompts)]
        numbered = self.rollout_group.number_streams(prompts)
        sides = [self.rollout_group, self.lent_group]
        own, lent = spread(len(numbered), [0, 0], [group.layout.replicas for group in sides])
        parts = [numbered.slice(0, own), numbered.slice(own, own + lent)]
        return [(group, rows) for group, rows in zip(sides, parts, strict=True) if len(rows)] or [(sides[0], numbered)]
