"""Direct preference optimization: from pairs to a policy, without a reward model or generation."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("dpo")
class DPO(Algorithm):
    """Offline DPO (arXiv 2305.18290, equation 7), one pair a row.

    The mean of  -log σ(β (log π(chosen) / reference(chosen) - log π(rejected) / reference(rejected))),  with
    `preference_loss.beta`, by default 0.1 as in its appendix B. The reward role only validates.
    """

    paper = "arXiv 2305.18290"
    roles = ("actor", "reference", "reward")
    components = ("preference_loss",)
    heeds = ()
    columns = ()
    losses = ("dpo",)
    preferences = True

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Score both sides of the pairs by the reference."""
        return prompts | self.reference.compute_ref_pair(prompts)

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Learn from the pairs."""
        for pairs in self.minibatches(rollout):
            self.actor.update_preferred(pairs)
        return rollout
