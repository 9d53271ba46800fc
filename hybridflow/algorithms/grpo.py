"""GRPO: PPO without a critic."""

from __future__ import annotations

from hybridflow.algorithms.base import Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("grpo")
class GRPO(Algorithm):
    """Group relative policy optimisation (arXiv 2402.03300): a row's advantage is its reward against its group's.

    Per row i of a group, at each of its tokens:  A = (r_i - mean(r)) / std(r),  in PPO's clipped objective. The KL to
    the reference stands in the loss (`policy_loss.kl_coef`, estimator k3, its equation 4).
    """

    paper = "arXiv 2402.03300"
    roles = ("actor", "reference", "reward")
    only_for_kl = ("reference",)
    parts = (*Algorithm.parts, "rollout_filter")

    def step(self, prompts: BatchRef) -> BatchRef:
        """Generate groups, score, compare inside each group, learn."""
        rollout = self.generate(prompts)
        rollout |= self.actor.compute_log_prob(rollout)
        if self.penalises_kl:
            rollout |= self.reference.compute_ref_log_prob(rollout)
        rollout |= self.reward.compute_reward(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(self.filtered(rollout)):
            self.actor.update_actor(rows)
        return rollout
