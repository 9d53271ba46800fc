"""RLOO: REINFORCE without a critic."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, algorithms
from hybridflow.algorithms.grpo import GRPO


@algorithms.register("rloo")
class RLOO(GRPO):
    """REINFORCE leave-one-out (arXiv 2402.14740, its estimator RLOO): the other samples of a prompt are the baseline.

    The flow is GRPO's. A = r_i - Σ_{j≠i} r_j / (k - 1) of k samples, with r less β log(π / reference) of the row
    (`reward_kl_coef`); the loss is -A log π (`pg`), so one minibatch and one epoch. Tokens are averaged; the paper's
    sum over a row and mean over rows is the same gradient times the mean length. Defaults: k = 8 and β = 0.001 are ours
    (the paper has k of 2 and 4).
    """

    paper = "arXiv 2402.14740"
    heeds = SAMPLING
