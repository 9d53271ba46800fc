"""Log-probs and entropy from logits that are cut along the vocabulary, without gathering them.

Each rank holds `logits` [T, V / t]. The largest logit and the sums over the vocabulary are all-reduced, so what crosses
ranks is a few numbers a token. Columns past the true vocabulary are padding and count as −inf.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def token_statistics(
    logits: Tensor, tokens: Tensor, group: dist.ProcessGroup, vocab: int, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-prob of each token and the entropy of each distribution.

    Args:
        logits: [T, V / t], this rank's part of the vocabulary, in any float format; computed in float32.
        tokens: [T] int64, numbers in the whole vocabulary.
        group: the tensor parallel group.
        vocab: the true size of the vocabulary, without padding.
        temperature: logits are divided by it, as in sampling.

    Returns:
        ([T] float32 log-probs, [T] float32 entropies), in nats, the same on all ranks. Both are differentiable.
    """
    return _TokenStatistics.apply(logits, tokens, group, vocab, temperature)


class _TokenStatistics(torch.autograd.Function):
    """With p = softmax(z / τ): d log p_y = (1[y] − p) / τ and dH = −p (log p + H) / τ for the logits z."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, group: dist.ProcessGroup, vocab: int, temperature: float
    ) -> tuple[Tensor, Tensor]:
        columns = logits.shape[-1]
        start = dist.get_rank(group) * columns
        scaled = logits.float() / temperature
        if start + columns > vocab:
            scaled[:, max(vocab - start, 0) :] = -torch.inf
        largest = scaled.amax(-1)
        _reduce(largest, group, dist.ReduceOp.MAX)
        scaled -= largest[:, None]
        mine = (tokens >= start) & (tokens < start + columns)
        local = torch.where(mine, tokens - start, 0)
        at_token = torch.where(mine, scaled.gather(-1, local[:, None])[:, 0], 0.0)
        weights = scaled.exp()
        expected = (weights * scaled.clamp(min=-1e30)).sum(-1)  # 0 · −inf is 0 here
        sums = torch.stack([weights.sum(-1), at_token, expected])
        _reduce(sums, group, dist.ReduceOp.SUM)
        total, at_token, expected = sums
        log_total = total.log()
        log_probs, entropy = at_token - log_total, log_total - expected / total
        ctx.save_for_backward(scaled, log_total, entropy, local, mine)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return log_probs, entropy

    @staticmethod
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        scaled, log_total, entropy, local, mine = ctx.saved_tensors
        log_p = scaled - log_total[:, None]
        p = log_p.exp()
        grad = p * (-grad_log_probs[:, None] - grad_entropy[:, None] * (log_p.clamp(min=-1e30) + entropy[:, None]))
        grad.scatter_add_(-1, local[:, None], torch.where(mine, grad_log_probs, 0.0)[:, None])
        return (grad / ctx.temperature).to(ctx.dtype), None, None, None, None


def _reduce(values: Tensor, group: dist.ProcessGroup, op: dist.ReduceOp.RedOpType) -> None:
    if dist.get_world_size(group) > 1:
        dist.all_reduce(values, op, group)
