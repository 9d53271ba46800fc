"""Training a reward model: the stage between supervised fine-tuning and reinforcement learning."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("reward_model")
class RewardModel(Algorithm):
    """Minimize the Bradley-Terry loss over preferences: the mean of -log σ(r_chosen - r_rejected).

    Source: arXiv 2203.02155, equation 1, with one pair a question. It has no settings of its own. A cost model is
    trained in the same way, on pairs whose chosen side is the one to be avoided.
    """

    paper = "arXiv 2203.02155"
    roles = ("reward_model",)
    components = ("pair_loss",)
    heeds = ()
    columns = ()
    losses = ("pairs",)
    learner = "reward_model"
    preferences = True

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Learn from the pairs."""
        for pairs in self.minibatches(rollout):
            self.reward_model.update_reward_model(pairs)
        return rollout
