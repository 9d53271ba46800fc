"""ReMax: a greedy response in place of a critic."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, Algorithm, algorithms
from hybridflow.batch import BatchRef


@algorithms.register("remax")
class ReMax(Algorithm):
    """ReMax (arXiv 2310.10505, algorithm 1): REINFORCE whose baseline is the reward of the greedy response.

    A = r(y) - r(greedy y) at every token, r less β log(π / reference) still to come (`reward_kl_coef`); the loss is
    -A log π (`pg`), so one minibatch and one epoch. Default: one sample a prompt, as there; β = 0.001 is ours.
    """

    paper = "arXiv 2310.10505"
    roles = ("actor", "reference", "reward")
    only_for_kl = ("reference",)
    components = (*Algorithm.components, "rollout_filter")
    heeds = SAMPLING
    columns = ("group_id", "baseline_rewards", "baseline_lengths")
    losses = ("policy",)

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Generate, and once more greedily; score both."""
        rollout = self.generate(prompts)
        greedy = prompts | self.actor.generate_sequences(prompts, temperature=0.0)
        if self.uses_reference_kl:
            rollout |= self.reference.compute_ref_log_prob(rollout)
        rollout |= self.reward.compute_reward(rollout)
        return rollout | self.reward.compute_baseline(greedy).repeat(self.config.samples_per_prompt)

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Learn from the difference."""
        rollout |= self.old_log_probs(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(self.filter_rollout(rollout)):
            self.actor.update_actor(rows)
        return rollout
