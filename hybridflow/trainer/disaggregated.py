"""DisaggregatedActor: the actor of a run whose generation has a pool of its own. For an algorithm it is one role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.controller import put


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
    """

    def __init__(self, actor: Any, rollout: Any) -> None:
        self._actor = actor
        self.rollout_group = rollout
        self.row_source: RowSource | None = None
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
        rows: BatchRef = self.rollout_group.generate_sequences(prompts, **options)
        return rows

    def stream_sequences(self, prompts: BatchRef, **options: Any) -> Any:
        """Sample as `ActorRole` says, on the rollout's ranks."""
        if self.row_source is not None and (sampled := self.row_source.sampled(prompts, options)) is not None:
            rows = np.arange(len(prompts))
            return iter([(rows, sampled.with_origin(rows))])
        self._sync_if_due()
        return self.rollout_group.stream_sequences(prompts, **options)
