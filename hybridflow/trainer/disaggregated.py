"""The actor of a run whose generation has a pool of its own: for an algorithm it is one role, as everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.controller import put


class DisaggregatedActor:
    """The actor's group, but for what generates: that is the rollout's, after a refit.

    The calls of a refit return at once, like all others.
    """

    def __init__(self, actor: Any, rollout: Any) -> None:
        self._actor, self._rollout = actor, rollout
        self._rank_ids = [put(Batch(rank_id=np.arange(group.layout.size))) for group in (actor, rollout)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._actor, name)

    def connect(self, meeting: str) -> None:
        """Make the two pools meet. Raises RoleError if they cannot, or if their plan cannot be made."""
        layouts = self._actor.layout, self._rollout.layout
        for call in [group.connect(meeting, *layouts) for group in (self._actor, self._rollout)]:
            call.get()

    def refit(self) -> None:
        """Give generation the newest weights, unless it has them."""
        offered, held = self._actor.report_version(self._rank_ids[0]), self._rollout.report_version(self._rank_ids[1])
        self._actor.send_weights(held)
        self._rollout.receive_weights(offered)

    def generate_sequences(self, prompts: BatchRef, **options: Any) -> BatchRef:
        """See `ActorRole`."""
        self.refit()
        rows: BatchRef = self._rollout.generate_sequences(prompts, **options)
        return rows

    def stream_sequences(self, prompts: BatchRef, **options: Any) -> Any:
        """See `ActorRole`."""
        self.refit()
        return self._rollout.stream_sequences(prompts, **options)
