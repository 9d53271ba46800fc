"""Memory of slots: what roles keep on them, what calls have besides, and who is away meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.config.schema import Device, DType, Recompute
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.hardware import Hardware, Link
from hybridflow.planning.run_spec import SYNC, RoleModel, RunSpec, Work
from hybridflow.planning.slot_memory import RoleBytes, role_bytes, slot_memory
from hybridflow.planning.stage_numbers import generation_numbers, training_numbers
from tests.planning.specs import MODELS, POLICY, SHAPE, build_spec

GIB = 2.0**30
GPUS = Hardware("gpus", "a test", Device.gpu, 8, 80 * GIB, 1e12, {DType.bfloat16: 1e15}, Link(0, 1e11), Link(0, 1e10))
SPEC = build_spec()


def numbers(layout: Layout, model: RoleModel = POLICY) -> int:
    return training_numbers("megatron", model.shape, layout.tensor, layout.pipeline, model.head)[0].weights


def on_gpus(model: RoleModel = POLICY, layout: Layout | None = None, spec: RunSpec = SPEC) -> RoleBytes:
    return role_bytes(model, layout or Layout(2, 1, 4), spec, GPUS)


def test_a_model_that_learns_keeps_gradients_moments_and_float32_weights() -> None:
    """Data parallel ranks share out the optimizer's state, and no gradients."""
    count = numbers(Layout(2))
    assert on_gpus().kept == {
        "weights": 2 * count, "gradients": 4 * count, "moments": 8 * count / 4, "master weights": 4 * count / 4,
    }  # fmt: skip
    whole = on_gpus(replace(POLICY, sharded_optimizer=False)).kept
    assert (whole["moments"], whole["master weights"]) == (8 * count, 4 * count)
    assert "master weights" not in on_gpus(replace(POLICY, dtype=DType.float32)).kept
    assert on_gpus(MODELS["reference"]).kept == {"weights": 2 * count}


def test_what_is_offloaded_is_there_in_calls_only() -> None:
    here = on_gpus()
    away = on_gpus(replace(POLICY, offloads_weights=True, offloads_optimizer=True))
    assert not away.kept
    assert away.beside[Work.train]["moments"] == here.kept["moments"]
    assert "moments" not in away.beside[Work.score] and away.beside[Work.score]["weights"] == here.kept["weights"]
    assert away.peak == here.peak  # of an actor alone
    on_cpu = role_bytes(replace(POLICY, offloads_weights=True), Layout(), replace(SPEC, kv_cache_bytes=GIB))
    assert on_cpu.kept["weights"]


def test_generation_sleeps_on_a_gpu_and_stays_on_a_cpu() -> None:
    """Awake it has its share of the device, of which a sync needs that of the weights only."""
    layout = Layout(2, 1, 4, generation=(1, 1))
    gpu = on_gpus(layout=layout)
    assert not any(name.startswith(("generation", "KV")) for name in gpu.kept)
    assert sum(gpu.beside[Work.generate].values()) == pytest.approx(SPEC.memory_fraction * 80 * GIB)
    assert gpu.beside[SYNC]["buckets"] > 64 * 2**20
    assert gpu.beside[SYNC]["generation's weights"] == gpu.beside[Work.generate]["generation's weights"]
    cpu = role_bytes(POLICY, layout, replace(SPEC, kv_cache_bytes=GIB))
    assert cpu.kept["KV cache"] == GIB
    together = role_bytes(POLICY, replace(layout, generation=(2, 1)), replace(SPEC, kv_cache_bytes=GIB))
    assert together.kept["KV cache"] == GIB / 2
    assert "buckets" not in together.beside[SYNC]


def test_a_cpu_generates_with_float32_copies_of_bfloat16_weights() -> None:
    """Of linear layers in place of the weights, of the output layer beside it."""
    of_embedding = SHAPE.vocab * SHAPE.hidden
    rest = generation_numbers("vllm", SHAPE, 1, 1)[0].weights - of_embedding
    layout = Layout(1, 1, 4, generation=(1, 1))
    for dtype, size, packed in ((DType.bfloat16, 2, of_embedding), (DType.float32, 4, 2 * of_embedding)):
        kept = role_bytes(replace(POLICY, dtype=dtype), layout, replace(SPEC, kv_cache_bytes=GIB)).kept
        assert kept["generation's weights"] == size * of_embedding + 4 * rest
        assert kept["generation's packed embeddings"] == 4 * packed


def test_earlier_stages_have_more_micro_batches_under_way() -> None:
    model = replace(POLICY, max_tokens_per_rank=2048)
    one, four = (on_gpus(model, Layout(1, stages)).beside[Work.train]["activations"] for stages in (1, 4))
    assert four == pytest.approx(one, rel=0.05)  # four times a quarter of the layers


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.sampled_from(list(Recompute)))
def test_more_ranks_of_a_replica_need_no_more_each(tensor: int, pipeline: int, data: int, recompute: Recompute) -> None:
    model = replace(POLICY, recompute=recompute, sequence=True)
    found = on_gpus(model, Layout(tensor, pipeline, data))
    assert found.rest <= on_gpus(model, Layout(1, 1, data)).rest * 1.02
    assert found.peak >= found.rest > 0
    recomputed = on_gpus(replace(model, recompute=Recompute.full), Layout(tensor, pipeline, data))
    assert recomputed.peak <= on_gpus(replace(model, recompute=Recompute.none), Layout(tensor, pipeline, data)).peak


def test_roles_of_a_pool_are_on_its_slots_together() -> None:
    """The critic's call has the most; the slot has that, and what all keep."""
    layouts = {"actor": Layout(2, 1, 4, generation=(1, 1)), "critic": Layout(2, 1, 4), "reference": Layout(2, 1, 4)}
    together = Arrangement({"main": 8}, {role: Seat("main", layout) for role, layout in layouts.items()})
    [slot] = slot_memory(SPEC, together, GPUS)
    alone = {role: role_bytes(MODELS[role], layout, SPEC, GPUS) for role, layout in layouts.items()}
    assert sum(slot.held.values()) == pytest.approx(sum(one.rest for one in alone.values()))
    assert slot.peak == pytest.approx(sum(one.rest for one in alone.values()) + max(one.most for one in alone.values()))
    assert next(iter(slot.phases)) == "actor.generate_sequences" and SYNC in slot.phases
    assert slot.device == 80 * GIB


def test_a_pool_of_graders_has_nothing_and_one_that_generates_only_its_share() -> None:
    seats = {
        "actor": Seat("train", Layout(2)), "critic": Seat("train", Layout(2)), "reference": Seat("train", Layout(2)),
        "rollout": Seat("rollout", Layout(2)), "reward": Seat("graders", Layout(data=3)),
    }  # fmt: skip
    slots = slot_memory(SPEC, Arrangement({"train": 2, "rollout": 2, "graders": 3}, seats), GPUS)
    peaks = {slot.pool: slot.peak for slot in slots}
    assert peaks["graders"] == 0
    assert peaks["rollout"] == pytest.approx(SPEC.memory_fraction * 80 * GIB)
    assert "actor.generate_sequences" not in slots[0].phases
    assert role_bytes(POLICY, Layout(2), SPEC, GPUS, only_generates=True).peak == peaks["rollout"]
    lent = {**seats, "actor": Seat("train", Layout(2, generation=(1, 1)))}
    [train, *_] = slot_memory(SPEC, Arrangement({"train": 2, "rollout": 2, "graders": 3}, lent, lends=True), GPUS)
    assert "actor.generate_sequences" in train.phases and train.peak >= slots[0].peak


def test_heads_of_one_number_have_no_logits() -> None:
    critic = on_gpus(replace(POLICY, head=Head.value))
    assert sum(critic.beside[Work.train].values()) < sum(on_gpus().beside[Work.train].values())
    assert numbers(Layout(), MODELS["critic"]) == numbers(Layout()) + SHAPE.hidden
