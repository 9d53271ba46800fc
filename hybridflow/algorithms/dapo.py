"""DAPO: GRPO that samples until enough groups teach something."""

from __future__ import annotations

from collections.abc import Mapping

from hybridflow.algorithms.algorithm import SAMPLING, Algorithm, algorithms
from hybridflow.batch import BatchRef, stacked
from hybridflow.errors import HybridFlowError


@algorithms.register("dapo")
class DAPO(Algorithm):
    """Decoupled clip and dynamic sampling policy optimization (arXiv 2503.14476, section 3).

    GRPO's advantage in PPO's objective with two bounds (`clip_low`, `clip_high`; equation 10), averaged over all tokens
    (equation 12), with overlong responses punished (`reward_shaping: overlong`; equation 13) and no KL. Dynamic
    sampling, equation 11: groups of equal rewards teach nothing (`rollout_filter: unequal_groups`), so further prompts
    are drawn until `prompts_per_step` groups are left, `max_draws` times at most; then it learns from those that there
    are.

    Defaults: the bounds 0.2 and 0.28 and a buffer of a fifth of the budget are its section 4.1's; 8 samples a prompt
    (there 16) and at most 10 draws (there no limit) are ours.
    """

    paper = "arXiv 2503.14476"
    roles = ("actor", "reference", "reward")
    only_for_kl = ("reference",)
    components = (*Algorithm.components, "rollout_filter")
    heeds = (*SAMPLING, "max_draws")
    losses = ("policy",)

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Sample until there are enough groups that teach something."""
        rollout = self.sample_until_enough(prompts)
        if self.uses_reference_kl:
            rollout |= self.reference.compute_ref_log_prob(rollout)
        return rollout

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Compare inside each group, learn."""
        rollout |= self.old_log_probs(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(rollout):
            self.actor.update_actor(rows)
        return rollout

    def sample_until_enough(self, prompts: BatchRef) -> BatchRef:
        """Sample `prompts_per_step` groups that the filter keeps, or as many as `max_draws` draws give.

        Raises HybridFlowError if it keeps none.
        """
        wanted = self.config.prompts_per_step
        draws = 1
        kept = stacked([self.sample_and_score(prompts)])
        while count_groups(kept) < wanted and draws < self.config.max_draws:
            draws += 1
            kept = stacked([kept, self.sample_and_score(self.next_prompts())])
        groups = count_groups(kept)
        if not groups:
            raise HybridFlowError(
                f"dapo: of {draws} x {wanted} prompts none has samples that rollout_filter keeps "
                f"({self.config.rollout_filter.name}): they are all right or all wrong, or their grades failed. Give "
                "easier or harder prompts, a warmer start, or more algorithm.samples_per_prompt; algorithm.max_draws "
                "says how often to try, and reward.max_failed_share=0 shows a grade that fails"
            )
        self.context.measured = {
            "rollout/draws": draws,
            "rollout/groups_kept": groups / (draws * wanted),
        }
        return kept.select((kept.driver_columns["group_id"] < wanted).nonzero()[0])

    def sample_and_score(self, prompts: BatchRef) -> BatchRef:
        """Generate responses with their rewards; leave those that the filter keeps."""
        rollout = self.generate(prompts)
        return self.filter_rollout(rollout | self.reward.compute_reward(rollout))

    def on_step_end(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Report how many draws of prompts the step took, and the share of their groups that was kept."""
        return {**super().on_step_end(metrics), **self.context.measured}


def count_groups(rollout: BatchRef) -> int:
    """Count the groups in `stacked` rows."""
    return int(rollout.driver_columns["group_id"].max(initial=-1)) + 1
