"""GSPO: GRPO with the ratios of whole rows."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import SAMPLING, algorithms
from hybridflow.algorithms.grpo import GRPO


@algorithms.register("gspo")
class GSPO(GRPO):
    """Group sequence policy optimisation (arXiv 2507.18071): one importance ratio a row.

    The flow is GRPO's. The loss `gspo` clips s_i = (π(y_i) / π_old(y_i))^(1 / |y_i|), its equations 5 and 7; the mean
    is over rows, and there is no KL. Defaults: the bounds 3e-4 and 4e-4 are its section 5.1's; 8 samples a prompt are
    GRPO's here.
    """

    paper = "arXiv 2507.18071"
    heeds = SAMPLING
