"""The reference: the frozen policy, scoring only."""

from __future__ import annotations

from hybridflow.batch import Batch
from hybridflow.losses.segments import row_sums
from hybridflow.roles import ReferenceRole
from hybridflow.workers.model_worker import ModelWorker, tensor
from hybridflow.workers.preference_pairs import sides
from hybridflow.workers.worker import Context, workers


@workers.register("reference")
class ReferenceWorker(ReferenceRole[Batch], ModelWorker):
    """Frozen policy on one rank."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reference)

    def compute_ref_log_prob(self, rollout: Batch) -> Batch:
        return self.scored(rollout, "log_probs", "ref_log_probs", temperature=self.temperature(rollout))

    def compute_ref_pair(self, pairs: Batch) -> Batch:
        with self.model_loaded() as engine:
            scores = engine.score(sides(pairs))
        if scores is None:
            return Batch()
        log_probs = scores["log_probs"]
        totals = row_sums(tensor(log_probs.values).double(), tensor(log_probs.lengths)).float().numpy()
        return Batch(ref_chosen=totals[::2], ref_rejected=totals[1::2])
