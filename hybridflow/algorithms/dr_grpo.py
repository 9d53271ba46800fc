"""Dr. GRPO: GRPO done right."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, algorithms
from hybridflow.algorithms.grpo import GRPO


@algorithms.register("dr_grpo")
class DrGRPO(GRPO):
    """Dr. GRPO (arXiv 2503.20783): what in GRPO favours long wrong answers, and easy or hard questions, is left out.

    The flow is GRPO's. A = r_i - mean(r), without the deviation (`advantage.options.normalize_std: false`); each row's
    loss is its sum over a constant in place of its mean (`policy_loss.aggregate: fixed_length_mean`); and no KL. All
    three are of its section 3.2. Defaults: the constant is `rollout.max_response_tokens`, as there; ε is PPO's 0.2; 8
    samples a prompt are GRPO's here.
    """

    paper = "arXiv 2503.20783"
    heeds = SAMPLING
