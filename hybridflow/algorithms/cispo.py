"""CISPO: GRPO with clipped weights in place of clipped tokens."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, algorithms
from hybridflow.algorithms.grpo import GRPO


@algorithms.register("cispo")
class CISPO(GRPO):
    """Clipped importance weights (arXiv 2506.13585, MiniMax-M1): no token loses its gradient.

    The flow is GRPO's. The loss `cispo` is -stop(min(r, 1 + ε)) A log π, its equations 4 and 5; the mean is
    over tokens. Defaults: those of the loss; 8 samples a prompt are GRPO's here, and no KL, as there.
    """

    paper = "arXiv 2506.13585"
    heeds = SAMPLING
