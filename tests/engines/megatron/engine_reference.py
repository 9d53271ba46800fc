"""What ranks run to be compared with one rank: everything that an engine computes, in one go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import megatron.core.optimizer
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import OptimizerConfig
from hybridflow.engines import logit_chunks
from hybridflow.engines.megatron import engine as engine_module
from hybridflow.engines.megatron import optimizer as optimizer_module
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.megatron.optimizer_shards import is_distributed, shard_of
from hybridflow.engines.megatron.sharding import padded_vocabulary
from hybridflow.engines.outputs import LossShare, MicroBatch, TokenOutputs
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.offloaded import Offload
from hybridflow.parallel.platform import Platform
from tests.engines import rank_functions, reference


@dataclass
class Found:
    """What one rank has to say.

    Attributes:
        rows: of the batch, that this rank had.
        logits, scores: of those rows, before the first step; None before the last stage.
        loss: the sum of this rank's shares in the first step; 0 before the last stage.
        grads: of the first step, whole, by the names of the weights of this rank's stage.
        norms: of the gradient, at each step.
        weights: after the last step.
        after: log-probs after the last step.
    """

    rows: list[int]
    logits: list[np.ndarray] | None
    scores: dict[str, Ragged] | None
    loss: float
    grads: rank_functions.Arrays
    norms: list[float]
    weights: rank_functions.Arrays
    after: Ragged | None


def rows_of(layout: Layout, dp: int, total: int) -> list[int]:
    """The rows of a data parallel rank."""
    return list(range(dp, total, layout.data))


def run(
    folder: Path,
    layout: Layout,
    batch: Batch,
    settings: OptimizerConfig,
    count: int,
    out: Path | None = None,
    **options: Any,
) -> Found:
    """Score, take `count` steps, score again and export."""
    made = rank_functions.trainer(folder, layout, settings, **options)
    rows = rows_of(layout, made.groups.at.dp, len(batch))
    mine = batch.select(rows)
    made.budget, budget = 10**6, made.budget
    logits = rank_functions.row_logits(made, mine)
    made.budget = budget
    scores = made.score(mine)
    losses: list[float] = []
    first: rank_functions.Arrays = {}
    norms = []
    for step in range(count):
        with before_step(made, lambda: first.update(gradients(made))) if step == 0 else nullcontext():
            result = made.train(mine, weighted(mine, losses if step == 0 else []))
        assert result.applied
        norms.append(result.grad_norm)
    after = made.score(mine)
    if out is not None:
        made.export(out)
    return Found(
        rows,
        logits,
        scores,
        sum(losses),
        first,
        norms,
        rank_functions.weights(made),
        after["log_probs"] if after else None,
    )


def weighted(batch: Batch, losses: list[float]) -> LossShare:
    """The loss of `reference`; its shares are added to the list."""

    def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        weights = rank_functions.at_tokens(batch.ragged("weights"), micro)
        share = reference.loss(outputs.log_probs, outputs.entropy, weights)
        losses.append(float(share.detach()))
        return share

    return loss


@contextmanager
def before_step(made: MegatronEngine, look: Any) -> Iterator[None]:
    """Call `look` when gradients are complete and before the optimizer has them."""
    assert made.optimizer is not None
    step = made.optimizer.step

    def looked() -> Any:
        look()
        return step()

    made.optimizer.step = looked  # type: ignore[method-assign]
    try:
        yield
    finally:
        made.optimizer.step = step  # type: ignore[method-assign]


def gradients(made: MegatronEngine) -> rank_functions.Arrays:
    """The gradients whole, by the names of the weights of this stage."""
    assert made.optimizer is not None
    params = list(made.model.parameters())
    values = [param.data.clone() for param in params]
    for param in params:
        part, whole = shard_of(made.optimizer.inner, param), torch.zeros_like(param.data).flatten()
        if part is not None:  # with a distributed optimizer a rank has the sum of its part only
            span = slice(*part.span)
            whole[span] = param.main_grad.flatten()[span]
        if made.optimizer.distributed:
            dist.all_reduce(whole, group=made.groups.dp)
        param.data.copy_(whole.view_as(param.data))
    found = rank_functions.weights(made)
    for param, value in zip(params, values, strict=True):
        param.data.copy_(value)
    return found


def poisoned(
    folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, rank: int, weight: str
) -> tuple[bool, bool, bool]:
    """Steps of which the second has a NaN in the gradient of one weight on one rank.

    Gives whether that step was applied, whether weights and the optimizer's state are as they were, and whether the
    third was applied.
    """
    made = rank_functions.trainer(folder, layout, settings)
    assert made.optimizer is not None
    mine = batch.select(rows_of(layout, made.groups.at.dp, len(batch)))
    made.train(mine, weighted(mine, []))
    before = [tensor.clone() for tensor in (*made.model.parameters(), *made.optimizer.state())]
    param = next(p for name, p in made.model.named_parameters() if weight in name)
    if dist.get_rank() == rank:
        hook = param.register_hook(lambda grad: torch.full_like(grad, torch.nan))
    second = made.train(mine, weighted(mine, []))
    now = [*made.model.parameters(), *made.optimizer.state()]
    same = all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    if dist.get_rank() == rank:
        hook.remove()
    return second.applied, same, made.train(mine, weighted(mine, [])).applied


class Moving(Platform):
    """This platform, which parks even on a CPU as on a GPU: storages are emptied, and filled again."""

    def offload(self, tensors: Any, *, keep: bool = True) -> Offload:
        """See `Platform`."""
        return Offload(tensors, keep=keep)


def overlapping() -> dict[str, Any]:
    """Reduce gradients during the backward pass, as on a GPU, in small buckets."""
    return {"overlap_grad_reduce": True, "bucket_size": 20_000}


# Which data parallel ranks of two have rows, step by step.
BUSY = ((0,), (0, 1), (0, 1), (1,), (0, 1))


def busy_steps(
    folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, *, overlap: bool, **options: Any
) -> tuple[rank_functions.Arrays, list[float], list[tuple[int, int]]]:
    """A step for each of `BUSY`; weights, norms, and for each step of this rank how many of its buckets are under way.

    That is counted when the last backward pass has ended and nobody waits for the reductions yet: (under way, all).
    """
    options_were = optimizer_module.ddp_options
    if overlap:
        optimizer_module.ddp_options = overlapping
    made = rank_functions.trainer(folder, layout, settings, **options)
    optimizer_module.ddp_options = options_were
    assert made.optimizer is not None
    buckets, finalize = made.optimizer.model.bucket_groups, made.config.finalize_model_grads_func
    started: list[tuple[int, int]] = []

    def counted(*given: Any, **named: Any) -> None:
        started.append((sum(bucket.grad_reduce_handle is not None for bucket in buckets), len(buckets)))
        finalize(*given, **named)

    made.config.finalize_model_grads_func = counted
    norms = []
    for busy in BUSY:
        shares = {dp: rows_of(Layout(data=len(busy)), place, len(batch)) for place, dp in enumerate(busy)}
        mine = batch.select(shares.get(made.groups.at.dp, []))
        norms.append(made.train(mine, weighted(mine, [])).grad_norm)
    return rank_functions.weights(made), norms, started


def offloaded(
    folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, **options: Any
) -> tuple[rank_functions.Arrays, list[int], int]:
    """Two steps and an export of weights with everything parked in between.

    Gives the weights, the bytes that are still held while all is parked, by kind, and those of the weights.
    """
    platform_was = engine_module.platform
    engine_module.platform = lambda: Moving(*astuple(platform_was()))  # type: ignore[assignment]
    made = rank_functions.trainer(folder, layout, settings, **options)
    mine = batch.select(rows_of(layout, made.groups.at.dp, len(batch)))
    size = sum(param.nbytes for param in made.model.parameters())
    held_bytes: list[int] = []
    for _ in range(2):
        made.offload(weights=True, optimizer=True)
        made.offload(weights=True, optimizer=True)
        held_bytes += in_memory(made)
        made.onload(optimizer=False)
        made.score(mine)
        made.offload(weights=True, optimizer=True)
        made.onload(optimizer=True)
        made.train(mine, weighted(mine, []))
    engine_module.platform = platform_was
    return rank_functions.weights(made), held_bytes, size


def in_memory(made: MegatronEngine) -> list[int]:
    """Bytes of the storages of weights, gradients, and the optimizer's state."""
    assert made.optimizer is not None
    kinds = (list(made.model.parameters()), made.optimizer.gradients(), list(made.optimizer.state()))
    return [sum(tensor.untyped_storage().nbytes() for tensor in kind) for kind in kinds]


class Largest(TorchDispatchMode):
    """The most tokens in any tensor that has a whole vocabulary for each."""

    def __init__(self, columns: int, weights: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.columns, self.weights, self.tokens = columns, weights, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, Tensor) and self.columns in tensor.shape:
                others = tuple(n for n in tensor.shape if n != self.columns)
                if others not in self.weights:
                    self.tokens = max(self.tokens, int(np.prod(others, dtype=int)))
        return found


def most_logits(folder: Path, layout: Layout, batch: Batch, tokens: int) -> tuple[int, int, dict[str, Ragged] | None]:
    """With chunks of so many tokens: for how many tokens there were logits at once in scoring, in a step; scores."""
    made = rank_functions.trainer(folder, layout, reference.SETTINGS, budget=10**6)
    columns = padded_vocabulary(made.shape, layout.tensor) // layout.tensor
    default, logit_chunks.LOGITS_BYTES = logit_chunks.LOGITS_BYTES, 4 * columns * tokens
    with Largest(columns, {(made.shape.hidden,), ()}) as scoring:
        scores = made.score(batch)
    with Largest(columns, {(made.shape.hidden,), ()}) as training:
        made.train(batch, weighted(batch, []))
    logit_chunks.LOGITS_BYTES = default
    return scoring.tokens, training.tokens, scores


class BatchedProducts(TorchDispatchMode):
    """The sizes of the batches of which products were made matrix by matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.sizes.add(len(args[0]))
        return func(*args, **(kwargs or {}))


def batched_products(folder: Path, layout: Layout, batch: Batch, head: Head, **options: Any) -> set[int]:
    """The sizes of batches in a step, of which one micro-batch is all."""
    made = rank_functions.trainer(folder, layout, reference.SETTINGS, budget=10**6, head=head, **options)
    with BatchedProducts() as seen:
        made.train(batch, lambda outputs, _: outputs.values.sum() + outputs.log_probs.sum() + outputs.scores.sum())
    return seen.sizes


def aggregated(
    folder: Path, layout: Layout, batch: Batch, aggregate: str, budget: int, parts: list[list[int]], limit: int
) -> rank_functions.Arrays:
    """The gradient of a loss under an aggregation, weighted as the workers do."""
    from hybridflow.losses.aggregations import aggregations

    made = rank_functions.trainer(folder, layout, reference.SETTINGS, budget=budget)
    mine = batch.select(parts[made.groups.at.dp])
    lengths = torch.from_numpy(mine.ragged("response_ids").lengths)
    totals = made.global_sums(float(lengths.sum()), float((lengths > 0).sum()))
    weights = mine.ragged("response_ids").like(aggregations.get(aggregate)(lengths, *totals, limit=limit).numpy())
    mine = Batch(prompt_ids=mine.ragged("prompt_ids"), response_ids=mine.ragged("response_ids"), weights=weights)
    found: rank_functions.Arrays = {}
    with before_step(made, lambda: found.update(gradients(made))):
        made.train(mine, weighted(mine, []))
    return found


def masters(
    folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, count: int
) -> list[tuple[bool, bool]]:
    """Of a model in bfloat16 after steps too small for it, for each parameter that this rank holds.

    Whether its master weights are float32 and the parameter is their rounding, and whether they have moved.
    """
    made = rank_functions.trainer(folder, layout, settings, dtype=torch.bfloat16)
    assert made.optimizer is not None
    start = [param.detach().clone() for param in made.model.parameters()]
    mine = batch.select(rows_of(layout, made.groups.at.dp, len(batch)))
    for _ in range(count):
        made.train(mine, weighted(mine, []))
    found = []
    for param, old in zip(made.model.parameters(), start, strict=True):
        part = shard_of(made.optimizer.inner, param)
        if part is not None:
            span = slice(*part.span)
            main = part.main.detach().flatten()
            rounded = torch.equal(main.bfloat16(), param.detach().flatten()[span])
            moved = not torch.equal(main, old.flatten()[span].float())
            found.append((main.dtype == torch.float32 and rounded, moved))
    return found


def adam_beside_another(folder: Path) -> str:
    """The class of the optimizer where Megatron has found one that is not torch's."""
    megatron.core.optimizer.USING_PYTORCH_OPTIMIZER = False
    made = rank_functions.trainer(folder, Layout(), reference.SETTINGS)
    assert made.optimizer is not None
    found = type(made.optimizer.inner.chained_optimizers[0].optimizer)
    return f"{found.__module__}.{found.__name__}"


@dataclass
class Active:
    """What one step over one micro-batch did.

    Attributes:
        attentions, mlps: how often they ran, over all layers of this stage.
        tokens, normed: of the micro-batch, and those that a norm between the layers saw on this rank.
        distributed: whether the optimizer's state is shared out.
    """

    attentions: int
    mlps: int
    tokens: int
    normed: int
    distributed: bool


def active(folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, **options: Any) -> Active:
    """Whether what is asked for is done."""
    made = rank_functions.trainer(folder, layout, settings, budget=10**6, **options)
    assert made.optimizer is not None
    calls = {"attention": 0, "mlp": 0}
    normed: set[int] = set()

    def counted(name: str) -> Any:
        def count(*_: Any) -> None:
            calls[name] += 1

        return count

    for layer in made.model.decoder.layers:
        layer.self_attention.core_attention.register_forward_hook(counted("attention"))
        layer.mlp.register_forward_hook(counted("mlp"))
        layer.input_layernorm.register_forward_hook(lambda _, given, __: normed.add(len(given[0])))
    made.train(batch, weighted(batch, []))
    [micro], [seen] = made.pack(batch), normed
    sharded = is_distributed(made.optimizer.inner)
    return Active(calls["attention"], calls["mlp"], micro.tokens.shape[1], seen, sharded)
