"""RLinf's test case of auto-placement: by its measure ours costs no more, and memory is looked at."""

from __future__ import annotations

import pytest

from benchmarks.rlinf_case import answer_s, case, colocated_s, component_s, memory, ours
from hybridflow.planning.hardware_files import read_hardware


def test_the_measure_is_rlinfs() -> None:
    rollout, inference, actor = case()["components"]
    assert component_s(rollout, 71) == 224  # 71 engines x 116 places hold 8,192 rows
    assert component_s(rollout, 70) == pytest.approx(224 * 128 / 70)
    assert component_s(actor, 32) == pytest.approx(101 * 4 / 1.4)
    assert component_s(actor, 128) == 101
    assert component_s(actor, 48) is None  # 2,048 rows of an update are no multiple of 24 replicas' groups
    assert component_s(inference, 3) is None
    groups = case()["groups"]
    shares = [224 / groups, 10 * 8 / 1.8 / groups, 101 * 4 / 1.4 / groups]
    assert answer_s(case()["answer"]) == pytest.approx(sum(shares) + (groups - 1) * max(shares))


def test_ours_costs_no_more_and_no_allocation_costs_less() -> None:
    found = ours()
    assert found is not None
    seconds, placed = found
    assert seconds <= answer_s(case()["answer"]) * (1 + 1e-9) < colocated_s()
    assert answer_s(placed) == pytest.approx(seconds)
    assert sum(placed.values()) <= case()["devices"]
    _, inference, actor = case()["components"]
    every = [
        answer_s({"rollout": most, "inference": some, "actor": others})
        for some in range(2, 128, 2)
        for others in range(2, 128 - some, 2)
        if component_s(inference, some) and component_s(actor, others)
        for most in {128 - some - others}  # its engines' seconds never grow with their number
    ]
    assert seconds == pytest.approx(min([*every, colocated_s()]))


def test_memory_is_looked_at_which_rlinf_does_not() -> None:
    device = read_hardware(case()["hardware"]).memory_bytes / 2**30
    assert max(memory("7B", case()["answer"]).values()) < device
    assert memory("32B", case()["answer"])["actor"] > device  # its tool gives the same answer
    assert ours("7B") == ours()
    assert ours("32B") is None
