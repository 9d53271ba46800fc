"""REINFORCE++: PPO's loss without a critic."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, algorithms
from hybridflow.algorithms.grpo import GRPO


@algorithms.register("reinforce_plus_plus")
class ReinforcePlusPlus(GRPO):
    """REINFORCE++ (arXiv 2501.03262): the reward to come, brought to scale over the whole batch, in PPO's clipped loss.

    The flow is GRPO's. A_t = (r - β Σ_{s≥t} KL_s), then (A - mean(A)) / std(A) over all tokens of the batch; one sample
    a prompt will do. With baseline (`advantage.name: reinforce_plus_plus_baseline`): r_i - mean(r) of its group in
    place of r, and the KL in the loss by k2 (`policy_loss.kl_coef`, `kl_estimator: k2`). Defaults: β = 0.001 in both,
    two minibatches, and 8 samples a prompt with the baseline are ours; ε is PPO's 0.2.
    """

    paper = "arXiv 2501.03262"
    heeds = SAMPLING
