"""Remarks of a plan: each is there where its figures say so, and not beside the threshold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hybridflow.config.key_suggestions import unknown
from hybridflow.config.schema import Device, DType
from hybridflow.models.model_shape import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning import plan_remarks
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.estimates import SlotMemory, Spread, StepEstimate
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work

GIB = 2**30
SHAPE = ModelShape(
    family="llama", layers=4, hidden=64, ffn=128, heads=4, kv_heads=2, head_dim=16, vocab=100, tied=True,
    qkv_bias=False, norm_eps=1e-5, rope_theta=1e4, max_positions=256,
)  # fmt: skip


def build_spec(rows: int = 64, max_tokens_per_rank: int = 1000, schedule: str = "sync") -> RunSpec:
    """A policy that generates and learns of rows of 100 tokens."""
    flow = (
        FlowCall("actor", "generate_sequences", Work.generate, True, rows),
        FlowCall("actor", "update_actor", Work.train, False, rows, after=(0,)),
    )
    actor = RoleModel(SHAPE, DType.bfloat16, trains=True, max_tokens_per_rank=max_tokens_per_rank)
    return RunSpec(
        flow, {"actor": actor}, rows, 1, Lengths((40.0,)), Lengths((60.0,)), 128, schedule, {}, max_concurrent_rows=64
    )


def alone(layout: Layout) -> Arrangement:
    return Arrangement({"main": layout.size}, {"actor": Seat("main", layout)})


def test_what_does_not_fit_names_its_largest_part_and_what_makes_it_less() -> None:
    phases = {
        "actor.update_actor": {"activations": 6.0 * GIB, "logits": 1.0 * GIB},
        "generate": {"KV cache": 1.0 * GIB},
    }
    slot = SlotMemory("main", {"actor: weights": 2.0 * GIB}, phases, device=8.0 * GIB)
    spec = build_spec(64)
    (remark,) = plan_remarks.of_memory([slot], spec, alone(Layout()))
    assert remark.key == "actor.max_tokens_per_rank"
    assert remark.text.startswith("pool main does not fit: 9.0 of 8.0 GiB of a slot in actor.update_actor")
    assert "activations 7.0, weights 2.0" in remark.text and "actor.recompute=full" in remark.text
    for device in (10.0 * GIB, 0.0):  # of 0 nobody knows what it is
        assert [*plan_remarks.of_memory([replace(slot, device=device)], spec, alone(Layout()))] == []
    (remark,) = plan_remarks.of_memory([replace(slot, device=9.1 * GIB)], spec, alone(Layout()))
    assert "hardly fits" in remark.text


@pytest.mark.parametrize(
    ("held", "data", "key"),
    [
        ({"actor: moments": 5, "actor: master weights": 2, "actor: weights": 4}, 2, "actor.optimizer.distributed"),
        ({"actor: moments": 9}, 1, "actor.offload.optimizer"),
        ({"actor: KV cache": 9}, 1, "rollout.gpu_memory_fraction"),
        ({"actor: generation's weights": 9}, 1, "rollout.parallel.tensor"),
        ({"actor: weights": 9, "actor: moments": 1}, 1, "actor.parallel.tensor"),
    ],
)
def test_each_kind_of_memory_has_a_setting_that_makes_it_less(held: dict[str, int], data: int, key: str) -> None:
    slot = SlotMemory("main", {part: size * GIB for part, size in held.items()}, {}, device=1.0 * GIB)
    (remark,) = plan_remarks.of_memory([slot], build_spec(64), alone(Layout(data=data)))
    assert remark.key == key and unknown(key) is None


def test_tensor_groups_across_nodes_are_named() -> None:
    arrangement = alone(Layout(tensor=4, data=2))
    assert [*plan_remarks.of_nodes(arrangement, {"main": [0] * 4 + [1] * 4})] == []
    (remark,) = plan_remarks.of_nodes(arrangement, {"main": [0] * 6 + [1] * 2})
    assert remark.key == "actor.parallel.tensor" and "1 of 2 tensor groups" in remark.text and "0 and 1" in remark.text


def test_a_pool_that_waits_for_most_of_a_step_is_named() -> None:
    seats = {"actor": Seat("learn", Layout()), "rollout": Seat("sample", Layout())}
    arrangement = Arrangement({"learn": 1, "sample": 1}, seats)
    step = StepEstimate(Spread(10, 9, 11), {}, (), {"learn": 6.0, "sample": 4.9}, 100)
    (remark,) = plan_remarks.of_idle(step, build_spec(), arrangement)
    assert remark.key == "placement.pools.learn" and "60%" in remark.text
    assert "placement.lend_idle_slots=true" in remark.text and "trainer.schedule=async" in remark.text
    (remark,) = plan_remarks.of_idle(step, build_spec(schedule="async"), replace(arrangement, lends=True))
    assert "lend_idle_slots" not in remark.text and "schedule" not in remark.text
    graders = Arrangement({"learn": 1, "sample": 1}, {"reward": Seat("learn", Layout()), "actor": seats["rollout"]})
    assert [*plan_remarks.of_idle(step, build_spec(), graders)] == [], "they take next to nothing"


def test_replicas_with_too_few_rows_are_named() -> None:
    eight = alone(Layout(data=8, generation=(1, 1)))
    assert [*plan_remarks.of_rows(build_spec(64), eight, Device.gpu)] == []
    (remark,) = plan_remarks.of_rows(build_spec(32), eight, Device.gpu)
    assert remark.key == "rollout.parallel.tensor" and "32 rows for 8 generation replicas are 4 each" in remark.text
    assert [*plan_remarks.of_rows(build_spec(32), eight, Device.cpu)] == [], "there a row costs what a row costs"
    assert [*plan_remarks.of_rows(build_spec(4), eight, Device.cpu)] != [], "some would have none"


def test_a_pipeline_that_is_mostly_empty_is_named() -> None:
    four = alone(Layout(pipeline=4))
    assert [*plan_remarks.of_pipelines(build_spec(30), four)] == []  # 3 micro-batches: half
    (remark,) = plan_remarks.of_pipelines(build_spec(20), four)
    assert remark.key == "actor.max_tokens_per_rank" and "2 micro-batches" in remark.text and "60% empty" in remark.text
    assert [*plan_remarks.of_pipelines(build_spec(20), alone(Layout(data=4)))] == []
    one = build_spec(20)
    pairs = replace(one, flow=(one.flow[0], replace(one.flow[1], sequences=2)))
    assert [*plan_remarks.of_pipelines(pairs, four)] == [], "a pair of responses is two sequences: 4 micro-batches"
    long = build_spec(20, max_tokens_per_rank=190)
    assert [*plan_remarks.of_pipelines(long, alone(Layout(pipeline=16)))] == [], "rows are not cut: 20 and not 11"


def test_passes_that_are_left_out_are_told() -> None:
    (remark,) = plan_remarks.of_passes(("actor", "reference", "reward"), ("actor", "reward"), 4)
    assert "reference is not started" in str(remark)
    (remark,) = plan_remarks.of_passes(("actor", "critic"), ("actor", "critic"), 4)
    assert remark.key == "algorithm.critic_warmup_steps" and "first 4 steps" in remark.text
    assert [*plan_remarks.of_passes(("actor", "critic"), ("actor", "critic"), 0)] == []


def test_a_flow_that_calls_nothing_is_told() -> None:
    (remark,) = plan_remarks.of_flow(replace(build_spec(), flow=()))
    assert "calls no role" in remark.text and unknown(remark.key) is None
    assert not [*plan_remarks.of_flow(build_spec())]
