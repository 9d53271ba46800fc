"""DisaggregatedActor: the actor of a run whose generation has a pool of its own. For an algorithm it is one role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.controller import put


class DisaggregatedActor:
    """Actor's group, but for what generates: that is the rollout's, once it has the newest weights.

    The calls of a weight sync return at once, like all others. Every call that samples makes them, for only the ranks
    know their versions; where these agree, nothing travels. A schedule that overlaps learning with generation makes
    them itself.
    """

    def __init__(self, actor: Any, rollout: Any) -> None:
        self._actor = actor
        self._rollout = rollout
        self._syncs = True
        self._rank_ids = [put(Batch(rank_id=np.arange(group.layout.size))) for group in (actor, rollout)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._actor, name)

    def connect(self, meeting: str) -> None:
        """Make the two pools meet. Raises RoleError if they cannot, or if their plan cannot be made."""
        layouts = self._actor.layout, self._rollout.layout
        for call in [group.connect(meeting, *layouts) for group in (self._actor, self._rollout)]:
            call.get()

    def sync_weights(self) -> None:
        """Give generation the newest weights, unless it has them."""
        offered = self._actor.report_version(self._rank_ids[0])
        rollout_versions = self._rollout.report_version(self._rank_ids[1])
        self._actor.send_weights(rollout_versions)
        self._rollout.receive_weights(offered)

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
        self._sync_if_due()
        rows: BatchRef = self._rollout.generate_sequences(prompts, **options)
        return rows

    def stream_sequences(self, prompts: BatchRef, **options: Any) -> Any:
        """Sample as `ActorRole` says, on the rollout's ranks."""
        self._sync_if_due()
        return self._rollout.stream_sequences(prompts, **options)
