"""Rewards of tokens, from a score a row."""

from __future__ import annotations

from torch import Tensor

from hybridflow.losses.segments import last_tokens


def token_rewards(
    rewards: Tensor,
    lengths: Tensor,
    kl: Tensor | None = None,
    kl_coef: float = 0.0,
    steps: Tensor | None = None,
) -> Tensor:
    """Put -`kl_coef` · `kl` at every token, and the row's score on top at its last; [T] float32.

    Source: arXiv 1909.08593, equation 2 (the KL penalty inside the reward), here a token at a time.

    Args:
        rewards: [R], the score of each row. An empty row has no token to carry its score, which is left out.
        lengths: [R] int64.
        kl: [T] estimate at each token, or None for no penalty; see `hybridflow.losses.kl_estimators`.
        steps: [T] values of tokens or steps beside the row's score, which are added in; None: there are none.

    Raises ValueError if the shapes disagree.
    """
    tokens = int(lengths.sum())
    if steps is not None and len(steps) != tokens:
        raise ValueError(f"token_rewards: {len(steps)} values of tokens for rows of {tokens} tokens; give one each")
    if len(rewards) != len(lengths) or (kl is not None and len(kl) != tokens):
        sizes = f"{len(rewards)} rewards, {'no' if kl is None else len(kl)} KL values"
        raise ValueError(f"token_rewards: {sizes} for {len(lengths)} rows of {tokens} tokens; give one each")
    rewards = rewards.detach().float()
    penalties = rewards.new_zeros(tokens) if kl is None else -kl_coef * kl.detach().float()
    scored = penalties.index_add(0, last_tokens(lengths), rewards[lengths > 0])
    return scored if steps is None else scored + steps.detach().float()
