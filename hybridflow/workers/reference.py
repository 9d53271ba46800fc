"""The reference: the frozen policy, scoring only."""

from __future__ import annotations

from hybridflow.batch import Batch
from hybridflow.roles import ReferenceRole
from hybridflow.workers.base import Context, workers
from hybridflow.workers.model import ModelWorker


@workers.register("reference")
class ReferenceWorker(ReferenceRole[Batch], ModelWorker):
    """The frozen policy on one rank."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reference)

    def compute_ref_log_prob(self, rollout: Batch) -> Batch:
        """See `ReferenceRole`."""
        return self.scored(rollout, "log_probs", "ref_log_probs")
