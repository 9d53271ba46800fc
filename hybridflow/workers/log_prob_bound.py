"""Bound on how far the log-probs of generation and training may lie apart, before rows are trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hybridflow.config.schema import Config

MIN_TOKENS = 16  # the mean of fewer says little: in bfloat16 single tokens are half a nat apart


def refuse_disagreement(
    config: Config, vocabulary: int, differences: np.ndarray, global_sums: Callable[..., list[float]]
) -> None:
    """Raise RuntimeError if the mean difference is beyond the bound of the actor's number format.

    All ranks with outputs call it. It says nothing of rows drawn from a part of the distribution (top_p, top_k, a
    smaller vocabulary), whose log-probs are of that part.

    Args:
        vocabulary: the model's.
        differences: [T] absolute, of tokens that the weights which now train have sampled; this rank's.
        global_sums: over the data parallel ranks.
    """
    rollout = config.rollout
    dtype = config.actor.model.dtype.value
    bound: float = getattr(rollout.max_log_prob_diff, dtype)
    whole = rollout.top_p == 1 and rollout.top_k == -1 and not 0 < rollout.vocabulary < vocabulary
    if not bound or not whole:
        return
    total, tokens = global_sums(float(differences.sum()), float(len(differences)))
    if tokens >= MIN_TOKENS and total / tokens > bound:
        raise RuntimeError(
            f"the log-probs of generation and training lie {total / tokens:.3g} apart in the mean of {tokens:.0f} "
            f"tokens that the newest weights sampled; in {dtype} at most {bound:g} is expected "
            f"(`rollout.max_log_prob_diff.{dtype}`). None of these rows was trained on. Look at what the engines "
            "compute with beside their weights: caches of older weights, temperatures, kernels, rows that a worker of "
            "yours has changed; and at `rollout.verify_refit`, if it is false. A flow that gives top_p, top_k or a "
            "vocabulary to a call sets the bound to 0, since its log-probs are of a part of the distribution"
        )
