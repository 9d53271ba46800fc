"""Supervised fine-tuning: the stage before reinforcement learning."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("sft")
class SFT(Algorithm):
    """Minimize the mean negative log-likelihood of the examples' response tokens: -Σ_t log π(y_t | x, y_<t) / tokens.

    Source: the first stage of RLHF, arXiv 2203.02155, section 3.5. It has no settings of its own; every token of the
    batch weighs the same. The reward role only validates.
    """

    roles = ("actor", "reward")
    components = ()
    heeds = ()
    columns = ()
    losses = ("supervised",)
    supervised = True

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Learn from the examples."""
        for rows in self.minibatches(rollout):
            self.actor.update_supervised(rows)
        return rollout
