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

from hybridflow.engines.logit_chunks import tokens_of_block, tokens_of_chunk
from hybridflow.engines.megatron.output_products import Wide, products
from hybridflow.parallel.platform import platform

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

    def read_(self, logits: Tensor, rows: slice) -> Tensor:
        """Divide [n, V / t] logits of these tokens by the temperature, and set padding to −inf, in place."""
        real = max(self.size - dist.get_rank(self.group) * logits.shape[1], 0)
        self.divide_(logits, rows)[:, real:] = -torch.inf
        return logits

    def divide_(self, of_logits: Tensor, rows: slice) -> Tensor:
        """Divide [n, V / t] logits of these tokens, or gradients of them, by the temperature, in place."""
        return of_logits if self.temperature is None else of_logits.div_(self.temperature[rows, None])


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
    """With p = softmax(z / τ): d log p_y = (1[y] − p) / τ and dH = −p (log p + H) / τ for the logits z.

    The last chunk's logits are kept for the backward pass, which begins when there are as many anyway.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, vocabulary: Vocabulary, chunk: int
    ) -> tuple[Tensor, Tensor]:
        start = dist.get_rank(vocabulary.group) * len(weight)
        mine = (tokens >= start) & (tokens < start + len(weight))
        local = torch.where(mine, tokens - start, 0)
        largest, total, expected, at_token = hidden.new_empty(4, len(hidden)).unbind()
        ctx.layer = layer = products(weight)
        ctx.last = None
        for part, of_chunk in _chunks(hidden, layer, chunk):
            for rows, logits in _blocks(of_chunk, part):
                vocabulary.read_(logits, rows)
                at_token[rows] = logits.gather(-1, local[rows, None])[:, 0]
                largest[rows] = logits.amax(-1).clamp_(min=LOWEST)
                weights = logits.sub_(largest[rows, None]).exp()
                total[rows] = weights.sum(-1)
                expected[rows] = weights.mul_(logits.clamp_(min=LOWEST)).sum(-1)
            if part.stop == len(hidden) and any(ctx.needs_input_grad):
                ctx.last = of_chunk
            del of_chunk, logits, weights  # before the next chunk's are made
        top = largest.clone()
        _reduce(top, vocabulary.group, dist.ReduceOp.MAX)
        below = largest - top
        share = below.exp()
        sums = torch.stack([total * share, (expected + total * below) * share, torch.where(mine, at_token - top, 0.0)])
        _reduce(sums, vocabulary.group, dist.ReduceOp.SUM)
        total, expected, at_token = sums
        log_total = total.log()
        entropy = log_total - expected / total
        ctx.save_for_backward(hidden, weight, largest, log_total - below, entropy, local, mine)
        ctx.vocabulary = vocabulary
        ctx.chunk = chunk
        return at_token - log_total, entropy

    @staticmethod
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, largest, log_total, entropy, local, mine = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        at_token = torch.where(mine, grad_log_probs, 0.0)
        for part, of_chunk, again in _chunks_again(ctx, hidden):
            for rows, logits in _blocks(of_chunk, part):
                if again:
                    ctx.vocabulary.read_(logits, rows).sub_(largest[rows, None])
                log_p = logits.sub_(log_total[rows, None])
                p = log_p.exp()
                grad = log_p.clamp_(min=LOWEST).add_(entropy[rows, None]).mul_(-grad_entropy[rows, None])
                grad.sub_(grad_log_probs[rows, None]).mul_(p)
                grad.scatter_add_(-1, local[rows, None], at_token[rows, None])
                ctx.vocabulary.divide_(grad, rows)
            # The logits' gradient has taken their place.
            ctx.layer.to_hidden(of_chunk, grad_hidden[part])
            ctx.layer.add_to_weight(grad_weight, of_chunk, hidden[part])
            del of_chunk, logits, log_p, p, grad  # before the next chunk's are made
        ctx.layer = None
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _chunks(hidden: Tensor, layer: Wide, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield tokens and their [n, V / t] logits by this layer, as they come out of it; the caller's to change."""
    for first in range(0, len(hidden), chunk):
        part = slice(first, min(first + chunk, len(hidden)))
        logits = layer.logits(hidden[part])
        yield part, logits
        del logits


def _chunks_again(ctx: Any, hidden: Tensor) -> Iterator[tuple[slice, Tensor, bool]]:
    """Yield tokens and their logits: first those that were kept, as they were left; then others, which are made again.

    The third says whether they were.
    """
    if not len(hidden):
        return
    start = len(hidden) - len(ctx.last)
    logits, ctx.last = ctx.last, None
    yield slice(start, len(hidden)), logits, False
    del logits
    for part, logits in _chunks(hidden[:start], ctx.layer, ctx.chunk):
        yield part, logits, True
        del logits


def _blocks(of_chunk: Tensor, part: slice) -> Iterator[tuple[slice, Tensor]]:
    """Yield tokens of a chunk and their logits, views of its logits.

    Each pass over the logits of a whole chunk would read them from memory; those of a block stay in a CPU's caches.
    """
    block = tokens_of_block(of_chunk.shape[1], accelerated=platform().accelerated)
    for first in range(part.start, part.stop, block):
        rows = slice(first, min(first + block, part.stop))
        yield rows, of_chunk[first - part.start : rows.stop - part.start]


def _reduce(values: Tensor, group: dist.ProcessGroup, op: dist.ReduceOp.RedOpType) -> None:
    if dist.get_world_size(group) > 1:
        dist.all_reduce(values, op, group)
