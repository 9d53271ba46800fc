"""PPO for language models."""

from __future__ import annotations

from typing import ClassVar

from hybridflow.algorithms.algorithm import SAMPLING, Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("ppo")
class PPO(Algorithm):
    """Proximal policy optimization with a critic (arXiv 1707.06347, equation 7; as RLHF, arXiv 2203.02155).

    Per token, with r = π/π_old:  max over π of  min(r·A, clip(r, 1 − ε, 1 + ε)·A),  A by GAE (arXiv 1506.02438,
    equation 16) from the rewards less β·KL(π ‖ reference) (arXiv 1909.08593, equation 2) and the critic's values.

    Defaults: ε = 0.2 is PPO's (section 6.1); γ = 1, λ = 0.95, whitened advantages and a value clip of 0.2 are those of
    the code released with arXiv 1909.08593. Four minibatches, β = 0.001 and four steps in which only the critic learns
    are ours, for rewards that are graded and a critic that starts from nothing.
    """

    paper = "arXiv 1707.06347"
    roles: ClassVar[tuple[str, ...]] = ("actor", "critic", "reference", "reward")
    only_for_kl = ("reference",)
    components: ClassVar[tuple[str, ...]] = (*Algorithm.components, "rollout_filter", "value_loss")
    heeds: ClassVar[tuple[str, ...]] = (*SAMPLING, "critic_warmup_steps")
    columns = ("group_id", "values")
    losses: ClassVar[tuple[str, ...]] = ("policy", "value")

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Generate, score."""
        rollout = self.generate(prompts)
        if self.uses_reference_kl:
            rollout |= self.reference.compute_ref_log_prob(rollout)
        return rollout | self.reward.compute_reward(rollout)

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Estimate advantages, learn."""
        rollout |= self.old_log_probs(rollout)
        rollout |= self.critic.compute_values(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(self.filter_rollout(rollout)):
            self.critic.update_critic(rows)
            if self.actor_learns:
                self.actor.update_actor(rows)
        return rollout
