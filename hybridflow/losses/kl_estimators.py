"""Estimates of KL(policy ‖ reference) from tokens that the policy sampled.

Source: J. Schulman, "Approximating KL divergence" (2020); k1, k2, k3 are its names. Each takes `log_probs` [T] and
`ref_log_probs` [T], natural logarithms of the sampled tokens, and gives [T].

A good estimate of the value is not a good estimate of the gradient. Differentiated through `log_probs` on tokens of
the policy itself, the mean of k1 has gradient zero (it says nothing), k2's is that of KL(policy ‖ reference), and
k3's is that of KL(reference ‖ policy). As a penalty inside the rewards, where nothing is differentiated, k1 is the
unbiased choice. All this holds for tokens of the policy itself: inside a loss, from the second update on a rollout on,
tokens are those of the policy that began the step, and no ratio corrects for that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridflow.losses.ratios import LARGEST_LOG_RATIO
from hybridflow.registry import Registry

KLEstimator = Callable[[Tensor, Tensor], Tensor]
kl_estimators: Registry[KLEstimator] = Registry("KL estimator", of=Callable)


@kl_estimators.register("k1")
def k1(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Estimate by log(policy / reference): unbiased, of high variance, negative for some tokens.

    Its gradient, 1 at each log-prob, has mean zero: for rewards, not for a loss.
    """
    return log_probs - ref_log_probs


@kl_estimators.register("k2")
def k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Estimate by ½ log²(policy / reference): biased, of low variance, never negative.

    Its gradient, the log ratio, is an unbiased estimate of that of KL(policy ‖ reference). REINFORCE++ with baseline
    has k2 in its loss (arXiv 2501.03262).
    """
    return 0.5 * (log_probs - ref_log_probs).square()


@kl_estimators.register("k3")
def k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Estimate by ratio - 1 - log ratio, with ratio = reference / policy: unbiased, of low variance, never negative.

    Its gradient, 1 - ratio, is that of KL(reference ‖ policy), the other direction; close to the reference they agree.
    It grows without limit where the reference finds a token likelier. GRPO has k3 in its loss (arXiv 2402.03300,
    equation 4). A log ratio above 20 counts as 20 and has no gradient.
    """
    log_ratio = (ref_log_probs - log_probs).clamp(max=LARGEST_LOG_RATIO)
    return torch.expm1(log_ratio) - log_ratio
