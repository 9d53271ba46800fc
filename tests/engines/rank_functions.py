"""What ranks run: engines on a layout of this world, kept from call to call where making them takes long."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.tensor_bytes import TensorBytes
from hybridflow.batch import Batch, Ragged
from hybridflow.batch.row_trees import RowTrees, token_places
from hybridflow.batch.shared_prefix import row_tokens, shared_prefixes
from hybridflow.config.schema import OptimizerConfig
from hybridflow.engines import logit_chunks
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.megatron.gpt_model import output_weight
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups, make_groups
from tests.engines import reference

Arrays = dict[str, np.ndarray]


def groups_of(layout: Layout) -> Groups:
    """A layout's process groups, which `tests.spmd` makes once."""
    return make_groups(layout, timeout_s=60)


def engine(folder: Path, layout: Layout, **options: Any) -> MegatronEngine:
    """A new engine in float32."""
    return MegatronEngine(folder, groups_of(layout), **{"dtype": torch.float32, "budget": 30, **options})


def trainer(folder: Path, layout: Layout, settings: OptimizerConfig, **options: Any) -> MegatronEngine:
    """A new engine that can learn."""
    return engine(folder, layout, optimizer=settings, total_steps=100, **options)


def at_tokens(column: Ragged, micro: MicroBatch) -> Tensor:
    """[N] what a column has for the response tokens of a micro-batch, beside them."""
    return torch.tensor(column.select(micro.rows).values, device=micro.targets.device)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Bit for bit on a CPU; on a GPU, whose kernels may add in another order, within the rounding of float32."""
    if platform().name == "cpu":
        return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
    return np.allclose(found, expected, rtol=1e-5, atol=1e-6)


def weights(made: MegatronEngine) -> Arrays:
    """The weights of this rank's stage, whole."""
    return {name: tensor.float().cpu().numpy().copy() for name, tensor in made.weights.gathered()}


def merged(found: list[Arrays]) -> dict[str, Tensor]:
    """Every stage's weights together. Asserts that ranks with the same weight have the same numbers."""
    whole: dict[str, Tensor] = {}
    for arrays in found:
        for name, array in arrays.items():
            tensor = torch.from_numpy(array)
            assert torch.equal(whole.setdefault(name, tensor), tensor), f"ranks differ in {name}"
    return whole


def score(
    folder: Path, layout: Layout, batch: Batch, temperature: np.ndarray | None = None
) -> dict[str, Ragged] | None:
    """`MegatronEngine.score` of a new engine."""
    return engine(folder, layout).score(batch, temperature=temperature)


def logits(folder: Path, layout: Layout, batch: Batch) -> list[np.ndarray] | None:
    """[L, V] of each row, from what the output layers of the tensor ranks give; None before the last stage."""
    return row_logits(engine(folder, layout, budget=10**6), batch)


def row_logits(made: MegatronEngine, batch: Batch) -> list[np.ndarray] | None:
    """[L, V] of each row of one micro-batch, by the output layers of the tensor ranks; None before the last stage.

    Tokens that rows share have one line, which is in each of them.
    """
    [micro] = made.pack(batch)
    caught: list[Tensor] = []
    if made.groups.last_stage:
        hook = made.model.output_layer.register_forward_hook(lambda *call: caught.append(call[-1][0][:, 0]))
    made.score(batch)
    if not made.groups.last_stage:
        return None
    hook.remove()
    mine = (caught[0] @ output_weight(made.model).float().t()).detach()
    parts = [torch.empty_like(mine) for _ in range(made.groups.layout.tensor)]
    dist.all_gather(parts, mine, group=made.groups.tp)
    whole = torch.cat(parts, -1)[:, : made.shape.vocab].cpu().numpy()
    trees = RowTrees.of(row_tokens(batch).lengths, shared_prefixes(batch))
    laid_out, shared = trees.layout(micro.rows)
    rows = micro.rows[laid_out]
    places = token_places(trees.lengths[rows], shared).select(np.argsort(rows))
    return [whole[row] for row in places]


def export(folder: Path, layout: Layout, out: Path, **options: Any) -> None:
    """Load and write."""
    settings = {} if options.get("head", Head.lm) is Head.lm else {"optimizer": OptimizerConfig()}
    engine(folder, layout, **settings, **options).export(out)


def learn(
    folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, *, count: int = 2,
    parts: list[list[int]] | None = None, **options: Any,
) -> tuple[Arrays, list[float]]:  # fmt: skip
    """`count` steps on the rows, or on `parts[d]` of them for each data parallel rank; weights and gradient norms."""
    made = trainer(folder, layout, settings, **options)
    mine = batch if parts is None else batch.select(parts[made.groups.at.dp])

    def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        return reference.loss(outputs.log_probs, outputs.entropy, at_tokens(mine.ragged("weights"), micro))

    results = [made.train(mine, loss) for _ in range(count)]
    assert all(result.applied and result.lr == settings.lr for result in results)
    return weights(made), [result.grad_norm for result in results]


def values(
    folder: Path, layout: Layout, batch: Batch, settings: OptimizerConfig, count: int, *, sequence: bool
) -> tuple[list[Ragged], list[float]]:
    """A value model's values before and after each of `count` steps towards `returns`, and the gradients' norms.

    There are no values before the last stage.
    """
    made = trainer(folder, layout, settings, head=Head.value, sequence=sequence)

    def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        returns = at_tokens(batch.ragged("returns"), micro)
        return (outputs.values - returns).square().sum() / len(batch.ragged("returns").values)

    found, norms = [made.score(batch)], []
    for _ in range(count):
        norms.append(made.train(batch, loss).grad_norm)
        found.append(made.score(batch))
    return [scores["values"] for scores in found if scores], norms


def no_gradient(folder: Path, layout: Layout, batch: Batch) -> tuple[bool, bool]:
    """A step whose loss is not a number: whether it was applied, and whether the weights are still the same."""
    made = trainer(folder, layout, reference.SETTINGS)
    before = weights(made)
    result = made.train(batch, lambda outputs, _: outputs.log_probs.sum() * torch.nan)
    after = weights(made)
    return result.applied, all(np.array_equal(before[name], after[name]) for name in before)


def statistics(
    logits: np.ndarray, tokens: np.ndarray, grads: np.ndarray, vocab: int, temperature: np.ndarray | None,
    layout: Layout, chunk: int | None = None, block: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """`token_statistics` through an output layer that gives [T, padded V] `logits`, cut over the tensor ranks.

    In chunks of so many tokens, and blocks of so many, if numbers are given.
    The two results, and this rank's gradients of the hidden states and of its weights. The hidden states are the
    logits themselves, and the weights are the identity.
    """
    from hybridflow.engines.megatron.vocab_parallel import Vocabulary, token_statistics

    group, device = groups_of(layout).tp, platform().device
    hidden = torch.tensor(logits, device=device, requires_grad=True)
    whole = torch.eye(logits.shape[-1], device=device)
    weight = whole.chunk(layout.tensor)[dist.get_rank(group)].clone().requires_grad_()
    targets = torch.tensor(tokens, device=device)
    heat = None if temperature is None else torch.tensor(temperature, device=device)
    bytes_of_block = 4 * len(weight) * block or logit_chunks.BLOCK_BYTES
    with patch.object(logit_chunks, "BLOCK_BYTES", bytes_of_block):
        found = token_statistics(hidden, weight, targets, Vocabulary(vocab, group, heat), chunk=chunk)
        torch.autograd.backward(found, tuple(torch.tensor(grads, device=device)))
    assert hidden.grad is not None and weight.grad is not None
    log_probs, entropy, of_hidden, of_weight = (
        tensor.detach().cpu().numpy() for tensor in (*found, hidden.grad, weight.grad)
    )
    return log_probs, entropy, of_hidden, of_weight


def chunks_at_once(learns: bool) -> float:
    """The most bytes that `token_statistics` has at once for four chunks, by those of a chunk's logits.

    Blocks are whole chunks, and the output layer is next to nothing.
    """
    from hybridflow.engines.megatron.vocab_parallel import Vocabulary, token_statistics

    tokens, rows = 32, 4096
    size = 4 * tokens * rows
    hidden = torch.ones(4 * tokens, 1, requires_grad=learns)
    weight = torch.ones(rows, 1, requires_grad=learns)
    targets = torch.arange(4 * tokens)
    vocabulary = Vocabulary(rows, groups_of(Layout()).tp)
    with patch.object(logit_chunks, "BLOCK_BYTES", size), TensorBytes().phase() as found:
        log_probs, entropy = token_statistics(hidden, weight, targets, vocabulary, chunk=tokens)
        if learns:
            (log_probs + entropy).sum().backward()
    return found["peak"] / size


def heads(
    folder: Path, layout: Layout, batch: Batch, out: Path, *, sequence: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """In bfloat16, a value model's values [T], a reward model's scores [R], and those of its export.

    None before the last stage.
    """
    options = {"dtype": torch.bfloat16, "sequence": sequence}
    critic = trainer(folder, layout, reference.SETTINGS, head=Head.value, **options)
    judge = trainer(folder, layout, reference.SETTINGS, head=Head.reward, **options)
    for made in (critic, judge):
        if made.groups.last_stage:  # new heads are 0
            weight = made.model.output_layer.weight
            weight.data.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
    judge.export(out)
    values, scores = critic.score(batch), judge.score_rows(batch)
    again = engine(out, layout, head=Head.reward, **options).score_rows(batch)
    if values is None or scores is None or again is None:
        return None
    return values["values"].values, scores, again
