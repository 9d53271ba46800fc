"""A mixture's experts: what a decode step reads of them, and what their ranks get of the tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hybridflow.config.schema import DType
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.model_arithmetic import layer_s, parameters
from hybridflow.planning.run_spec import RoleModel, RunSpec
from hybridflow.planning.slot_memory import role_bytes
from hybridflow.planning.training_cost import offload_s

HARDWARE = read_hardware("h100_80g_8x")
SHAPE = ModelShape(
    family="qwen3",
    layers=48,
    hidden=2048,
    ffn=768,
    heads=32,
    kv_heads=4,
    head_dim=128,
    vocab=151936,
    tied=False,
    qkv_bias=False,
    norm_eps=1e-6,
    rope_theta=1e6,
    max_positions=40960,
)
MIXTURE = RoleModel(SHAPE, DType.bfloat16, trains=True, experts=128, active_experts=8)  # Qwen3-30B-A3B


def test_parameters_are_those_of_all_experts_or_of_a_tokens() -> None:
    assert parameters(MIXTURE) == pytest.approx(30.5e9, rel=0.01)
    assert parameters(replace(MIXTURE, experts=8)) == pytest.approx(3.3e9, rel=0.02)


def test_one_row_reads_its_own_experts_and_many_rows_read_all() -> None:
    reading = HARDWARE.memory_bytes_per_s * HARDWARE.efficiency.reading
    expert = 3 * SHAPE.hidden * SHAPE.ffn * MIXTURE.number_bytes / reading
    one = float(layer_s(HARDWARE, MIXTURE, 1, 1, decodes=True))
    many = float(layer_s(HARDWARE, MIXTURE, 256, 1, decodes=True))
    assert 7 * expert < one < 14 * expert  # 8 of them, and attention's matrices
    assert many > 120 * expert


@pytest.mark.parametrize("layout", [Layout(2, 1, 4), Layout(2, 1, 4, expert=8), Layout(4, 1, 2, expert=2)])
def test_all_ranks_together_keep_the_optimizers_state_once(layout: Layout) -> None:
    model = replace(MIXTURE, sharded_optimizer=True)
    spec = RunSpec((), {"actor": model}, 1, 1, Lengths((1.0,)), Lengths((1.0,)), 1, "sync", {}, 1)
    kept = role_bytes(model, layout, spec, HARDWARE).kept
    assert layout.size * kept["master weights"] == pytest.approx(4 * parameters(model), rel=0.01)
    each = layout.expert if layout.expert > 1 else layout.tensor
    experts = model.shape.layers * model.experts * 3 * SHAPE.hidden * SHAPE.ffn
    assert kept["weights"] == pytest.approx(
        2 * (experts / each + (parameters(model) - experts) / layout.tensor), rel=0.01
    )


def test_tensor_ranks_read_a_slice_of_each_expert() -> None:
    whole, sliced = (float(layer_s(HARDWARE, MIXTURE, 64, tensor, decodes=True)) for tensor in (1, 4))
    assert sliced == pytest.approx(whole / 4, rel=0.15)


def test_ranks_that_share_experts_out_do_as_much_as_ranks_that_slice_them() -> None:
    tokens = 65536  # all experts are used, and products are large either way
    shared, sliced = (float(layer_s(HARDWARE, MIXTURE, tokens, 8, expert)) for expert in (8, 1))
    assert shared == pytest.approx(sliced, rel=0.3)


@pytest.mark.parametrize("layout", [Layout(2, 1, 4), Layout(2, 1, 4, expert=8), Layout(4, 1, 2, expert=2)])
def test_what_is_offloaded_are_the_bytes_that_ranks_have(layout: Layout) -> None:
    away = replace(MIXTURE, sharded_optimizer=True, offloads_weights=True, offloads_optimizer=True)
    spec = RunSpec((), {"actor": away}, 1, 1, Lengths((1.0,)), Lengths((1.0,)), 1, "sync", {}, 1)
    kept = role_bytes(replace(away, offloads_weights=False, offloads_optimizer=False), layout, spec, HARDWARE).kept
    moved = kept["weights"] + kept["moments"] + kept["master weights"]
    seconds = offload_s(HARDWARE, away, layout, trains=True)
    assert seconds == pytest.approx(2 * (HARDWARE.host.latency_s + moved / HARDWARE.host.bytes_per_s), rel=0.02)
