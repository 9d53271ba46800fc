"""Supervised fine-tuning: the stage before reinforcement learning."""

from __future__ import annotations

from hybridflow.algorithms.base import Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("sft")
class SFT(Algorithm):
    """Minimise the mean negative log-likelihood of the examples' response tokens.

    The reward role only validates.
    """

    roles = ("actor", "reward")
    parts = ()
    columns = ()
    supervised = True

    def step(self, prompts: BatchRef) -> BatchRef:
        """Learn from the examples."""
        for rows in self.minibatches(prompts):
            self.actor.update_supervised(rows)
        return prompts
