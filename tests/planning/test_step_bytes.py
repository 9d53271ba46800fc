"""Bytes of a step: those of a weight sync are its plan's, to the byte; those of rows are what calls read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.config.schema import DType, Resharding
from hybridflow.engines.base import make_shardings
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.step_bytes import colocated_numbers, sent_numbers, step_bytes
from hybridflow.resharding.plan import make_plan, make_pool_plan

SHAPE = ModelShape(
    family="llama", layers=4, hidden=24, ffn=48, heads=4, kv_heads=4, head_dim=6, vocab=100, tied=False,
    qkv_bias=False, norm_eps=1e-6, rope_theta=1e4, max_positions=256,
)  # fmt: skip
SIZES = st.sampled_from([1, 2, 4])


@settings(max_examples=25, deadline=None)
@given(SIZES, SIZES, st.integers(1, 3), SIZES, SIZES, st.booleans(), st.sampled_from(["hybrid", "full_gather"]))
def test_colocated_ranks_get_what_the_plan_gives_them(
    tensor: int, pipeline: int, data: int, t_g: int, p_g: int, tied: bool, method: str
) -> None:
    layout = Layout(tensor, pipeline, data, generation=(min(t_g, tensor), min(p_g, pipeline)))
    shape = replace(SHAPE, tied=tied)
    shardings = make_shardings("megatron", "vllm", shape, layout, layout)
    plan = make_plan(shardings, layout, itemsize=1, bucket_bytes=4096, method=method)
    assert colocated_numbers("vllm", shape, layout, Resharding(method)) == sum(plan.received.values())


def test_the_formula_of_the_paper_is_that_of_what_tensor_ranks_cut() -> None:
    layout = Layout(4, 1, 2, generation=(2, 1))
    cut = colocated_numbers("vllm", SHAPE, layout) / layout.size
    whole = 2 * SHAPE.vocab * 24 + SHAPE.layers * (4 * 24 * 24 + 3 * 24 * 48)
    assert cut == (4 - 2) / (2 * 4) * whole


@settings(max_examples=15, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, st.integers(1, 3), st.sampled_from([1, 2, 4]), st.booleans())
def test_a_pool_of_its_own_is_sent_what_the_plan_sends(
    tensor: int, pipeline: int, t_g: int, p_g: int, data: int, kv_heads: int, tied: bool
) -> None:
    shape = replace(SHAPE, tied=tied, kv_heads=kv_heads)
    training = Layout(min(tensor, kv_heads), pipeline, 2)
    generation = Layout(t_g, p_g, data)
    shardings = make_shardings("megatron", "vllm", shape, training, generation)
    plan = make_pool_plan(shardings, training, generation, itemsize=1, bucket_bytes=4096)
    assert sent_numbers("vllm", shape, generation) == sum(plan.received.values())


def test_rows_travel_to_each_rank_that_computes_them() -> None:
    flow = (
        FlowCall("actor", "generate_sequences", Work.generate, True, 8, reads=(("prompt_ids", "ragged int"),)),
        FlowCall(
            "actor", "compute_log_prob", Work.score, False, 8, (0,),
            reads=(("response_ids", "ragged int"), ("rewards", "float"), ("answer", "object")),
        ),
    )  # fmt: skip
    model = RoleModel(SHAPE, DType.bfloat16, trains=True)
    spec = RunSpec(flow, {"actor": model}, 8, 1, Lengths((10.0,)), Lengths((20.0,)), 32, "sync", {}, 8)
    apart = Arrangement(
        {"main": 4, "rollout": 2},
        {"actor": Seat("main", Layout(2, 2)), "rollout": Seat("rollout", Layout(2, 1, 1))},
    )
    found = step_bytes(spec, apart)
    assert found.rows == {
        "actor.generate_sequences": 8 * (8 + 10 * 8) * 2,
        "actor.compute_log_prob": 8 * (8 + 20 * 8 + 4) * 4,
    }
    assert found.weight_sync["actor → generation"] == 2 * sent_numbers("vllm", SHAPE, Layout(2))
    here = Arrangement({"main": 4}, {"actor": Seat("main", Layout(2, 2, generation=(1, 1)))})
    assert step_bytes(spec, here).weight_sync["actor → generation"] == pytest.approx(
        2 * colocated_numbers("vllm", SHAPE, Layout(2, 2, generation=(1, 1)))
    )
