"""Training a cost model: what Safe-RLHF holds under a limit, learnt from preferences."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import algorithms
from hybridflow.algorithms.reward_model import RewardModel


@algorithms.register("cost_model")
class CostModel(RewardModel):
    """Cost model of Safe-RLHF (arXiv 2310.12773, equation 6): which of two responses is more harmful, and is each?

    The flow is a reward model's. The mean of  -log σ(C_w - C_l) - log σ(s_w C_w) - log σ(s_l C_l),  w being the more
    harmful response and s = 1 for a harmful one, else -1 (`pair_loss: signed_cost`): so costs above zero are harm.
    """

    paper = "arXiv 2310.12773"
    heeds = ()
