"""Overheads from measured calls: what a known machine would have taken gives that machine again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.config.schema import Device, DType
from hybridflow.models import ModelShape
from hybridflow.planning.hardware import Hardware, Overheads
from hybridflow.planning.hardware_files import read_hardware, write_hardware
from hybridflow.planning.hardware_fit import (
    empty_flow_s,
    hardware_of,
    least_deviations,
    nonnegative_least_squares,
    predicted,
)
from hybridflow.planning.machine_measurements import CallTime, Measurements

METHODS = ("sync_weights", "generate_sequences", "compute_reward", "compute_log_prob", "update_actor")
TRUE = Overheads(
    call=1e-3, row=2e-4, layer=2e-3, micro_batch=4e-3, generate=5e-3, engine_step=2e-3, engine_layer=5e-4,
    engine_row=1e-4, sync=1e-2, sync_weight=5e-4, sync_byte=1e-9,
)  # fmt: skip


def shape(layers: int, hidden: int) -> ModelShape:
    return ModelShape(
        "qwen2", layers, hidden, 3 * hidden, hidden // 32, hidden // 32, 32, 14, False, True, 1e-6, 1e4, 256
    )  # fmt: skip


@pytest.fixture(scope="module")
def machine() -> Hardware:
    return replace(read_hardware("cpu"), overheads=TRUE)


@pytest.fixture
def measured(machine: Hardware) -> Measurements:
    """What a machine with these overheads takes."""
    found = Measurements(Device.cpu, 8, 1e9, 2, 128, 2.0**29)
    found.products = {
        dtype: [[m, k, k, 2 * m * k * k / 5e10] for m in (1, 32, 1024) for k in (64, 512)] for dtype in DType
    }
    found.attention = [[2, 4, tokens, 32, 2 * 2 * 4 * tokens**2 * 32 / 1e10] for tokens in (32, 256)]
    found.copies = [[2**27, 2**28 / 1e10]]
    found.collectives = {("all_reduce", 2): [[size, 4e-4 + size / 1e9] for size in (2**8, 2**18, 2**24)]}
    found.calls = [
        CallTime(method, shape(layers, hidden), rows, prompt, tuple([most] * rows), 1.0, 1.0, 512)
        for layers, hidden in ((2, 384), (8, 192))
        for rows, prompt, most in ((2, 8, 16), (32, 8, 16), (96, 8, 16), (16, 8, 64), (16, 160, 8))
        for method in METHODS
    ]
    seconds = predicted(replace(hardware_of(found, "there", "made"), overheads=TRUE), found)
    found.calls = [
        replace(call, wall_s=float(taken), seconds=float(taken) - TRUE.call)
        for call, taken in zip(found.calls, seconds, strict=True)
    ]
    return found


def test_a_known_machine_comes_out_again(measured: Measurements) -> None:
    hardware = hardware_of(measured, "there", "made")
    assert predicted(hardware, measured) == pytest.approx([call.wall_s for call in measured.calls], rel=0.02)
    assert hardware.overheads.engine_row == pytest.approx(TRUE.engine_row, rel=0.1)
    assert hardware.within.latency_s == pytest.approx(2e-4, rel=0.1)
    assert hardware.flops[DType.float32] == pytest.approx(5e10)


@pytest.mark.parametrize("dispatch", [0.0, 4e-4, 3e-3])
def test_what_a_driver_takes_of_a_call_comes_out_of_flows_that_compute_nothing(
    measured: Measurements, dispatch: float
) -> None:
    measured.flows = {1: [[5, 4, empty_flow_s(5, 4, TRUE.call, dispatch)]]}
    assert hardware_of(measured, "there", "made").overheads.dispatch == pytest.approx(dispatch, rel=0.01, abs=1e-6)
    assert empty_flow_s(5, 4, 1e-3, 4e-4) == pytest.approx(3 * 4e-4 + 10 * 1e-3)  # others are sent meanwhile


def test_a_few_disturbed_calls_do_not_move_it(measured: Measurements) -> None:
    undisturbed = np.array([call.wall_s for call in measured.calls])
    for number in range(0, len(measured.calls), 7):
        measured.calls[number] = replace(measured.calls[number], wall_s=3 * measured.calls[number].wall_s)
    errors = np.abs(predicted(hardware_of(measured, "there", "made"), measured) / undisturbed - 1)
    assert np.median(errors) < 0.03


def test_a_file_of_it_is_read_as_it_was(measured: Measurements, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("hardware") / "there.yaml"
    hardware = hardware_of(measured, "there", "made")
    write_hardware(hardware, file)
    assert read_hardware(file) == hardware


def test_a_machine_of_one_rank_has_its_memory_for_a_link(measured: Measurements) -> None:
    measured.collectives.clear()
    assert hardware_of(measured, "there", "made").within.bytes_per_s == pytest.approx(5e9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_least_squares_that_no_other_choice_beats(seed: int, width: int) -> None:
    chance = np.random.default_rng(seed)
    columns = chance.normal(size=(12, width))
    values = chance.normal(size=12)
    chosen = nonnegative_least_squares(columns, values)
    slope = columns.T @ (values - columns @ chosen)
    assert (chosen >= 0).all()
    assert slope.max() < 1e-6  # none would be better larger,
    assert np.abs(slope[chosen > 0]).max(initial=0.0) < 1e-6  # and those above 0 are as they should be


def test_least_deviations_pass_through_what_most_agree_on() -> None:
    at = np.arange(1.0, 11.0)
    values = 2 * at + 1
    values[3] = 100.0
    assert least_deviations(np.stack([at, np.ones(10)], axis=1), values) == pytest.approx([2, 1], rel=0.01)
