"""Log-probs and entropy of tokens from their hidden states, through an output layer sharded along the vocabulary.

Each rank holds `weight` [V / t, H]. Logits are made for a chunk of tokens at a time, in the forward and again in the
backward pass, so [T, V] logits never exist. A rank reduces its own part of the vocabulary to three numbers a token
(as one would a softmax that is read in parts: arXiv 1805.02867), and only those cross ranks, once for all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.engines.logit_chunks import tokens_of_chunk
from hybridflow.engines.megatron.output_products import Wide, products

LOWEST = -1e30  # stands for the logits of padding, where 0 · −inf would be no number


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary of the logits, and how they are to be read.

    Attributes:
        size: of the true vocabulary; columns past it are padding and count as −inf.
        group: the tensor parallel group.
        temperature: [N], each token's logits are divided by it, as in sampling; None: by 1.
    """

    size: int
    group: dist.ProcessGroup
    temperature: Tensor | None = None

    def divide_(self, of_logits: Tensor, part: slice) -> Tensor:
        """Divide [n, V / t] logits of these tokens, or gradients of them, by the temperature, in place."""
        return of_logits if self.temperature is None else of_logits.div_(self.temperature[part, None])


def token_statistics(
    hidden: Tensor, weight: Tensor, tokens: Tensor, vocabulary: Vocabulary, *, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Log-prob of each token and the entropy of each distribution.

    Logits are float32, whatever the model's format: rounded to bfloat16 they set the log-probs of two engines further
    apart, 0.032 against 0.029 nats in the mean, vLLM against this engine on SmolLM2-135M. MiniMax-M1
    (arXiv 2506.13585) keeps its output layer in float32 too.

    Args:
        hidden: [N, H] float32, the same on all ranks; with a bfloat16 weight, numbers of that format
            (`hybridflow.engines.megatron.output_products`). Each rank's gradient is of its part of the vocabulary only.
        weight: [V / t, H], this rank's part of the output layer, in any float format.
        tokens: [N] int64, numbers in the whole vocabulary.
        chunk: tokens whose logits exist at a time; by default as many as `logit_chunks` says.

    Returns:
        ([N] float32 log-probs, [N] float32 entropies), in nats, the same on all ranks. Both are differentiable.
    """
    chunk = chunk or tokens_of_chunk(len(weight))
    return _TokenStatistics.apply(hidden, weight, tokens, vocabulary, chunk)


class _TokenStatistics(torch.autograd.Function):
    """With p = softmax(z / τ): d log p_y = (1[y] − p) / τ and dH = −p (log p + H) / τ for the logits z."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, vocabulary: Vocabulary, chunk: int
    ) -> tuple[Tensor, Tensor]:
        start = dist.get_rank(vocabulary.group) * len(weight)
        mine = (tokens >= start) & (tokens < start + len(weight))
        local = torch.where(mine, tokens - start, 0)
        largest, total, expected, at_token = hidden.new_empty(4, len(hidden)).unbind()
        layer = products(weight)
        for part, logits in _chunks(hidden, layer, len(weight), vocabulary, chunk):
            at_token[part] = logits.gather(-1, local[part, None])[:, 0]
            largest[part] = logits.amax(-1).clamp_(min=LOWEST)
            weights = logits.sub_(largest[part, None]).exp()
            total[part] = weights.sum(-1)
            expected[part] = weights.mul_(logits.clamp_(min=LOWEST)).sum(-1)
            del logits, weights  # before the next chunk's are made
        top = largest.clone()
        _reduce(top, vocabulary.group, dist.ReduceOp.MAX)
        below = largest - top
        share = below.exp()
        sums = torch.stack([total * share, (expected + total * below) * share, torch.where(mine, at_token - top, 0.0)])
        _reduce(sums, vocabulary.group, dist.ReduceOp.SUM)
        total, expected, at_token = sums
        log_total = total.log()
        entropy = log_total - expected / total
        ctx.save_for_backward(hidden, weight, top, log_total, entropy, local, mine)
        ctx.vocabulary = vocabulary
        ctx.chunk = chunk
        return at_token - log_total, entropy

    @staticmethod
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, top, log_total, entropy, local, mine = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        layer = products(weight)
        at_token = torch.where(mine, grad_log_probs, 0.0)
        for part, logits in _chunks(hidden, layer, len(weight), ctx.vocabulary, ctx.chunk):
            log_p = logits.sub_(top[part, None]).sub_(log_total[part, None])
            p = log_p.exp()
            grad = log_p.clamp_(min=LOWEST).add_(entropy[part, None]).mul_(-grad_entropy[part, None])
            grad.sub_(grad_log_probs[part, None]).mul_(p)
            grad.scatter_add_(-1, local[part, None], at_token[part, None])
            ctx.vocabulary.divide_(grad, part)
            layer.to_hidden(grad, grad_hidden[part])
            layer.add_to_weight(grad_weight, grad, hidden[part])
            del logits, log_p, p, grad  # before the next chunk's are made
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _chunks(
    hidden: Tensor, layer: Wide, rows: int, vocabulary: Vocabulary, chunk: int
) -> Iterator[tuple[slice, Tensor]]:
    """Tokens, and their [n, V / t] logits over the temperature, −inf where there is padding; the caller's to change.

    Args:
        layer: products with this rank's rows of the output layer, of which there are `rows`.
    """
    real = max(vocabulary.size - dist.get_rank(vocabulary.group) * rows, 0)
    for first in range(0, len(hidden), chunk):
        part = slice(first, first + chunk)
        logits = vocabulary.divide_(layer.logits(hidden[part]), part)
        logits[:, real:] = -torch.inf
        yield part, logits
        del logits


def _reduce(values: Tensor, group: dist.ProcessGroup, op: dist.ReduceOp.RedOpType) -> None:
    if dist.get_world_size(group) > 1:
        dist.all_reduce(values, op, group)
