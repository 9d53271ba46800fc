"""Every layout and every setting of training against transformers and plain torch, in float32.

Rows are packed here and taken one at a time there. Errors are relative, in the 2-norm, of each tensor.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from hybridflow.config.schema import Recompute
from hybridflow.losses.aggregations import aggregations
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import rank_functions, reference
from tests.engines.megatron import engine_reference
from tests.matrix import thinned
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks

VOCAB = 70  # padded to 128 on two tensor ranks: the second has 6 rows that are real
MODELS = {
    "qwen2-tied": {"architecture": "qwen2", "vocab": VOCAB, "tied": True},
    "llama": {"architecture": "llama", "vocab": VOCAB},
    "llama3": {"architecture": "llama", "vocab": VOCAB, "llama3_rope": True},
    "mistral": {"architecture": "mistral", "vocab": VOCAB},
    "qwen3-tied": {"architecture": "qwen3", "vocab": VOCAB, "tied": True},
}
SHARDED = dataclasses.replace(reference.SETTINGS, distributed=True)
CASES: dict[str, tuple[Layout, dict[str, Any]]] = {
    "tp2": (Layout(2), {}),
    "pp2": (Layout(1, 2), {}),
    "dp2": (Layout(data=2), {}),
    "tp2-pp2": (Layout(2, 2), {}),
    "tp2-sequence": (Layout(2), {"sequence": True}),
    "tp2-pp2-sequence": (Layout(2, 2), {"sequence": True}),
    "dp2-distributed": (Layout(data=2), {"settings": SHARDED}),
    "tp2-dp2-sequence-distributed": (Layout(2, 1, 2), {"sequence": True, "settings": SHARDED}),
    "pp2-dp2-distributed": (Layout(1, 2, 2), {"settings": SHARDED}),
    "tp2-sequence-full": (Layout(2), {"sequence": True, "recompute": Recompute.full}),
    "pp2-full": (Layout(1, 2), {"recompute": Recompute.full}),
    "tp2-selective": (Layout(2), {"recompute": Recompute.selective}),
}
STEPS = 3
PLAIN = ("tp2", "pp2", "dp2", "tp2-pp2", "tp2-sequence", "dp2-distributed")  # for every model; the rest for two
WHOLE = ("qwen2-tied", "llama")
# Rows, and a budget for them: one that cuts a tree of those that share prefixes.
ROWS = {"plain": (reference.rows, 13), "shared": (reference.shared_rows, 20)}
RUNS = thinned(
    [
        *((model, case, "plain") for model in MODELS for case in (CASES if model in WHOLE else PLAIN)),
        *(("llama", case, "shared") for case in CASES),
    ],
    {
        *product(["qwen2-tied"], CASES, ["plain"]),
        ("llama", "tp2-dp2-sequence-distributed", "plain"),
        ("llama3", "tp2-pp2", "plain"),
        ("mistral", "tp2-sequence", "plain"),
        ("qwen3-tied", "tp2-pp2", "plain"),
        ("llama", "tp2-pp2-sequence", "shared"),
        ("llama", "tp2-selective", "shared"),
    },
)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What transformers and torch give, one row at a time."""

    logits: list[Tensor]
    log_probs: Tensor
    entropies: Tensor
    loss: float
    grads: dict[str, Tensor]
    weights: dict[str, Tensor]
    norms: list[float]


@cache
def expected(folder: Path, rows: str = "plain") -> Expected:
    batch, model = ROWS[rows][0](VOCAB), reference.load(folder)
    logits = reference.row_logits(model, batch)
    log_probs, entropies = reference.statistics(logits, batch)
    loss = reference.loss(log_probs, entropies, torch.from_numpy(batch.ragged("weights").values))
    loss.backward()
    grads = {name: param.grad for name, param in model.named_parameters()}
    weights, norms = reference.steps(folder, batch, STEPS, reference.SETTINGS)
    detached = [row.detach() for row in logits]
    return Expected(detached, log_probs.detach(), entropies.detach(), float(loss), grads, weights, norms)


def off(found: Any, wanted: Any) -> float:
    """|found − wanted| / |wanted|."""
    a, b = (torch.as_tensor(x).double() for x in (found, wanted))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("model", "case", "rows"), RUNS)
def test_everything_is_that_of_one_row_at_a_time(
    model: str, case: str, rows: str, ranks: GetRanks, tiny: GetModel, tmp_path: Path
) -> None:
    folder, (layout, given) = tiny(**MODELS[model]), CASES[case]
    make, budget = ROWS[rows]
    batch, want = make(VOCAB), expected(folder, rows)
    options = {"settings": reference.SETTINGS, "budget": budget, **given}
    found = ranks(layout.size).run(
        engine_reference.run, folder, layout, batch, count=STEPS, out=tmp_path / "out", **options
    )

    heads = [found[rank] for rank in layout.output_ranks]
    for rank in found:
        np.testing.assert_allclose(rank.norms, want.norms, rtol=1e-5)
        if rank.scores is not None:
            assert max(off(row, want.logits[i]) for i, row in zip(rank.rows, rank.logits, strict=True)) < 1e-5
    assert sum(rank.scores is not None for rank in found) == layout.tensor * layout.data
    assert off(sum(rank.loss for rank in heads), want.loss) < 1e-5
    for name, values in (("log_probs", want.log_probs), ("entropy", want.entropies)):
        like = batch.ragged("response_ids").like(values.numpy())
        for rank in heads:
            assert off(rank.scores[name].values, like.select(rank.rows).values) < 1e-5, name

    grads, weights = (rank_functions.merged([getattr(rank, kind) for rank in found]) for kind in ("grads", "weights"))
    assert set(grads) == set(want.grads)
    assert {name: error for name, grad in grads.items() if (error := off(grad, want.grads[name])) > 1e-5} == {}
    assert reference.apart(weights, want.weights, load_file(folder / "model.safetensors")) < 1e-4

    with torch.no_grad():
        after, _ = reference.statistics(reference.row_logits(reference.load(tmp_path / "out"), batch), batch)
    like = batch.ragged("response_ids").like(after.numpy())
    assert off(after, want.log_probs) > 1e-3, "the steps changed nothing"
    for rank in heads:
        assert off(rank.after.values, like.select(rank.rows).values) < 1e-5


@pytest.mark.parametrize("case", [name for name, (layout, _) in CASES.items() if layout.size == 2])
def test_a_setting_does_what_it_says(case: str, ranks2: Ranks, tiny: GetModel) -> None:
    """Without this, the test above would hold for a setting that is lost on its way."""
    layout, given = CASES[case]
    layers, again = 4 // layout.pipeline, given.get("recompute", Recompute.none)
    wanted = layers * (1 + (again != Recompute.none)), layers * (1 + (again == Recompute.full))
    options = {"settings": reference.SETTINGS, **given}
    for found in ranks2.run(engine_reference.active, tiny(**MODELS["llama"]), layout, reference.rows(VOCAB), **options):
        assert (found.attentions, found.mlps) == wanted
        parts = 2 if given.get("sequence") else 1
        assert found.tokens in (49, 50) and found.normed == found.tokens / parts
        assert found.distributed == options["settings"].distributed


@pytest.mark.parametrize("case", ["tp2-sequence", "dp2-distributed", "tp2-pp2"])
def test_two_runs_are_alike_bit_for_bit(case: str, ranks: GetRanks, tiny: GetModel) -> None:
    layout, given = CASES[case]
    options = {"settings": reference.SETTINGS, **given}
    folder = tiny(**MODELS["qwen2-tied"])
    one, two = (
        ranks(layout.size).run(engine_reference.run, folder, layout, reference.rows(VOCAB), count=2, **options)
        for _ in "ab"
    )
    for first, second in zip(one, two, strict=True):
        assert rank_functions.same(np.array([*first.norms, first.loss]), np.array([*second.norms, second.loss]))
        for name, values in first.weights.items():
            assert rank_functions.same(second.weights[name], values), name


@pytest.mark.parametrize(
    ("layout", "distributed", "weight"),
    [
        (Layout(2), False, "linear_fc1"),
        (Layout(2), False, "layernorm"),
        (Layout(1, 2), False, "linear_fc1"),
        (Layout(data=2), False, "linear_fc1"),
        (Layout(data=2), True, "linear_fc1"),
    ],
    ids=["tp2", "tp2-alike-on-both", "pp2", "dp2", "dp2-distributed"],
)
def test_a_nan_on_one_rank_skips_the_step_on_all(
    layout: Layout, distributed: bool, weight: str, ranks2: Ranks, tiny: GetModel
) -> None:
    """Also one in rank 1's copy of a weight that both tensor ranks have, which the norm of the model does not see."""
    own = dataclasses.replace(reference.SETTINGS, distributed=distributed)
    folder = tiny(**MODELS["qwen2-tied"])
    found = ranks2.run(engine_reference.poisoned, folder, layout, reference.rows(VOCAB), own, rank=1, weight=weight)
    assert found == [(False, True, True)] * 2


@pytest.mark.parametrize("case", ["dp2", "dp2-distributed", "pp2-dp2-distributed"])
def test_reducing_gradients_while_others_are_made_changes_nothing(case: str, ranks: GetRanks, tiny: GetModel) -> None:
    """As on a GPU; and steps in which a data parallel rank has no rows, the first among them."""
    layout, own = CASES[case]
    folder, batch = tiny(**MODELS["qwen2-tied"]), reference.rows(VOCAB)
    options = {"settings": reference.SETTINGS, "budget": 13, **own}
    plain, found = (
        ranks(layout.size).run(engine_reference.busy_steps, folder, layout, batch, overlap=overlap, **options)
        for overlap in (False, True)
    )
    for rank, (weights, norms, started) in enumerate(found):
        expected, expected_norms, never = plain[rank]
        steps = [step for step in engine_reference.BUSY if layout.coordinates[rank].dp in step]
        np.testing.assert_allclose(norms, expected_norms, rtol=1e-5)
        for name, values in expected.items():  # steps of 1e-3; other shards, so that norms round in another way
            np.testing.assert_allclose(weights[name], values, rtol=0, atol=1e-6, err_msg=name)
        assert {under_way for under_way, _ in never} == {0}
        under_way = [count for count, _ in started]
        together = [number for number, step in enumerate(steps) if len(step) == 2]
        buckets = started[0][1]
        assert layout.pipeline > 1 or buckets > 3
        # Megatron learns the order of the buckets from the first such step.
        assert under_way == [buckets if number in together[1:] else 0 for number in range(len(steps))]


LIMIT = 9


@cache
def aggregated_by_rows(folder: Path, aggregate: str) -> dict[str, Tensor]:
    """The gradient by the words of each aggregation: means and sums of rows, no weights."""
    batch, model = reference.rows(VOCAB), reference.load(folder)
    log_probs, entropies = reference.statistics(reference.row_logits(model, batch), batch)
    losses = -(log_probs + reference.ENTROPY_COEF * entropies)
    rows = [row for row in losses.split(batch.ragged("response_ids").lengths.tolist()) if len(row)]
    means = {
        "token_mean": losses.mean(),
        "sequence_mean": sum(row.mean() for row in rows) / len(rows),
        "fixed_length_mean": sum(row.sum() / LIMIT for row in rows) / len(rows),
    }
    means[aggregate].backward()
    return {name: param.grad for name, param in model.named_parameters()}


@pytest.mark.parametrize("aggregate", sorted(aggregations))
def test_a_mean_is_exact_however_rows_are_cut(aggregate: str, ranks2: Ranks, tiny: GetModel) -> None:
    """Over micro-batches of any budget and any share of the data parallel ranks."""
    folder = tiny(**MODELS["llama"])

    @settings(max_examples=6)
    @given(
        budget=st.sampled_from([1, 8, 13, 20, 30, 10**6]),
        owner=st.lists(st.integers(0, 1), min_size=7, max_size=7),
    )
    def check(budget: int, owner: list[int]) -> None:
        parts = [[row for row in range(7) if owner[row] == dp] for dp in range(2)]
        batch = reference.rows(VOCAB)
        found = ranks2.run(engine_reference.aggregated, folder, Layout(data=2), batch, aggregate, budget, parts, LIMIT)
        grads, wanted = rank_functions.merged(found), aggregated_by_rows(folder, aggregate)
        assert max(off(grads[name], wanted[name]) for name in wanted) < 1e-5

    check()


@pytest.mark.parametrize("layout", [Layout(), Layout(2)], ids=["one", "tp2"])
def test_logits_exist_a_chunk_at_a_time(layout: Layout, ranks: GetRanks, tiny: GetModel) -> None:
    folder, batch = tiny(architecture="qwen2", vocab=300, tied=True), reference.rows(VOCAB)
    assert len(batch.ragged("response_ids").values) == 27
    for scoring, training, scores in ranks(layout.size).run(engine_reference.most_logits, folder, layout, batch, 4):
        assert (scoring, training) == (4, 4)
        assert off(scores["log_probs"].values, expected(folder).log_probs) < 1e-5
        assert off(scores["entropy"].values, expected(folder).entropies) < 1e-5


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("case", ["tp2", "pp2", "tp2-sequence"])
def test_no_weight_is_multiplied_with_each_token_alone(case: str, head: Head, ranks2: Ranks, tiny: GetModel) -> None:
    """As torch does where a gradient's strides are not those of a new tensor. Three, at most: rotary angles."""
    layout, options = CASES[case]
    folder, batch = tiny(**MODELS["llama"]), reference.rows(VOCAB)
    for sizes in ranks2.run(engine_reference.batched_products, folder, layout, batch, head, **options):
        assert max(sizes, default=0) <= 3


@pytest.mark.parametrize("case", ["tp2", "dp2-distributed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_what_was_offloaded_goes_on_bit_for_bit(case: str, dtype: torch.dtype, ranks2: Ranks, tiny: GetModel) -> None:
    """On a platform that moves: while all is parked, no memory is held but the optimizer's counts of steps."""
    layout, own = CASES[case]
    options = {"settings": reference.SETTINGS, "dtype": dtype, **own}
    folder, batch = tiny(**MODELS["llama"]), reference.rows(VOCAB)
    found = ranks2.run(engine_reference.offloaded, folder, layout, batch, **options)
    plain = ranks2.run(engine_reference.run, folder, layout, batch, count=2, **options)
    for (weights, held_bytes, size), other in zip(found, plain, strict=True):
        assert held_bytes == [0] * 6 and size > 10**5
        assert all(rank_functions.same(weights[name], values) for name, values in other.weights.items())


def test_the_optimizer_is_torchs_where_megatron_would_take_another(ranks1: Ranks, tiny: GetModel) -> None:
    """Beside TransformerEngine or Apex."""
    assert ranks1.run(engine_reference.adam_beside_another, tiny(**MODELS["llama"])) == ["torch.optim.adamw.AdamW"]


@pytest.mark.parametrize("own", [reference.SETTINGS, SHARDED], ids=["whole", "distributed"])
def test_bf16_has_float32_masters(own: Any, ranks2: Ranks, tiny: GetModel) -> None:
    """Steps of 1e-7 are far below what most weights in bfloat16 can show; the masters keep them."""
    tiny_steps = dataclasses.replace(own, lr=1e-7, weight_decay=0.0)
    folder, batch = tiny(**MODELS["llama"]), reference.rows(VOCAB)
    for found in ranks2.run(engine_reference.masters, folder, Layout(data=2), batch, tiny_steps, 3):
        assert found and all(kept and moved for kept, moved in found)
