"""What real steps on a CPU have taught the simulators."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hybridflow.config.schema import DType
from hybridflow.parallel.layout import Layout
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.hardware import Curve
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.model_arithmetic import elementwise_s
from hybridflow.planning.run_spec import FlowCall, Work
from tests.planning.specs import POLICY, build_spec

CPU = read_hardware("cpu")
MODEL = replace(POLICY, dtype=DType.float32)
SCORE = FlowCall("reference", "compute_ref_log_prob", Work.score, True, 64)
GENERATE = FlowCall("actor", "generate_sequences", Work.generate, True, 64)


def generating_s(prompt: float, samples: int) -> float:
    spec = replace(build_spec(64 // samples, samples, responses=Lengths((1.0,))), prompt_tokens=Lengths((prompt,)))
    return Simulators(CPU).call_s(GENERATE, MODEL, Layout(), spec).mean


def test_copies_of_a_prompt_share_whole_blocks_only() -> None:
    assert generating_s(30.0, 4) == pytest.approx(generating_s(30.0, 1), rel=1e-6)  # of 32 tokens, there is none
    assert generating_s(129.0, 4) < 0.6 * generating_s(129.0, 1)


def test_a_weight_that_travels_is_handled_twice() -> None:
    hardware = replace(CPU, overheads=replace(CPU.overheads, sync_weight=1.0))
    spec = build_spec()
    inside = Simulators(hardware).sync_s(MODEL, Layout(2, generation=(2, 1)), None, spec).mean
    gathered = Simulators(hardware).sync_s(MODEL, Layout(2, generation=(1, 1)), None, spec).mean
    assert gathered / inside == pytest.approx(2, rel=0.05)


def test_more_ranks_than_cores_wait_longer_for_one_another() -> None:
    crowded = replace(CPU, crowded_latency_s=0.1)
    spec = build_spec()
    for layout, slower in ((Layout(2), False), (Layout(2, data=2), True)):
        taken = [Simulators(hardware).call_s(SCORE, MODEL, layout, spec).mean for hardware in (CPU, crowded)]
        assert (taken[1] > taken[0]) == slower


def test_what_caches_have_is_faster() -> None:
    cached = replace(CPU, caches=Curve((1e6, 1e8), (4.0, 1.0)))
    few, many = 8.0, 1e5
    assert elementwise_s(cached, MODEL, few, 1) == pytest.approx(elementwise_s(CPU, MODEL, few, 1) / 4)
    assert elementwise_s(cached, MODEL, many, 1) == elementwise_s(CPU, MODEL, many, 1)


def test_a_row_that_is_only_graded_is_not_packed() -> None:
    hardware = replace(CPU, overheads=replace(CPU.overheads, row=1.0, grade=0.0, call=0.0))
    grade = FlowCall("reward", "compute_reward", Work.grade, True, 64)
    assert Simulators(hardware).call_s(grade, None, Layout(), build_spec()).mean == 0.0
