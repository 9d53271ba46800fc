"""GRPO: PPO without a critic."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("grpo")
class GRPO(Algorithm):
    """Group relative policy optimization (arXiv 2402.03300): a row's advantage is its reward against its group's.

    Per row i of a group, at each of its tokens:  A = (r_i - mean(r)) / std(r)  (section 4.1.2),  in PPO's clipped
    objective (equation 3). The KL to the reference stands in the loss (`policy_loss.kl_coef`, k3; equation 4).

    Defaults: the paper gives no ε, so PPO's 0.2; 8 samples a prompt and a KL coefficient of 0.001 are ours, for small
    tasks with graded answers (the paper has 64 and 0.04, section 4.2). Tokens are averaged as in DAPO; the paper's mean
    over rows is `policy_loss.aggregate: sequence_mean`.
    """

    paper = "arXiv 2402.03300"
    roles = ("actor", "reference", "reward")
    only_for_kl = ("reference",)
    components = (*Algorithm.components, "rollout_filter")
    heeds = SAMPLING
    losses = ("policy",)

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Generate groups and score them."""
        rollout = self.generate(prompts)
        if self.uses_reference_kl:
            rollout |= self.reference.compute_ref_log_prob(rollout)
        return rollout | self.reward.compute_reward(rollout)

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Compare inside each group, learn."""
        rollout |= self.old_log_probs(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(self.filter_rollout(rollout)):
            self.actor.update_actor(rows)
        return rollout
