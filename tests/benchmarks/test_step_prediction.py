"""Rounds of measured steps: what a record of several says, and how well a measurement repeats."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.machine_speed import MachineSpeed
from benchmarks.measured_steps import at_one_speed, joined
from benchmarks.step_prediction import repeats


def record(
    variant: str, *steps_s: float, generate: float = 0.0, tokens: float = 8.0, speed: float = 100.0
) -> dict[str, Any]:
    """What a round says of a variant."""
    phases = {"generate": generate} if generate else {}
    middle = sorted(steps_s)[len(steps_s) // 2]
    return {
        "model": "small", "workload": "short", "variant": variant, "step_s": middle, "steps_s": list(steps_s),
        "phases_s": phases, "shares_prompts": True, "response_tokens": [tokens] * 16,
        "speed": speed,
    }  # fmt: skip


def rounds_of(variant: str, *steps_s: float) -> dict[str, Any]:
    """Rounds of one step each."""
    return joined([record(variant, seconds) for seconds in steps_s])


def test_a_record_of_rounds_has_their_medians() -> None:
    rounds = [record("a", 1.0, 2.0, 9.0, generate=0.5), record("a", 4.0, 4.0, 4.0, tokens=4.0), record("a", 3.0)]
    found = joined(rounds)
    assert (found["step_s"], found["rounds_s"]) == (3.0, [[1.0, 2.0, 9.0], [4.0, 4.0, 4.0], [3.0]])
    assert found["phases_s"] == {"generate": 0.0} and not {"steps_s", "speed"} & {*found}
    assert found["speeds"] == [100.0, 100.0, 100.0]
    assert found["response_tokens"][0] == 4.0 and found["response_tokens"][-1] == 8.0
    assert (found["model"], found["variant"], found["shares_prompts"]) == ("small", "a", True)


def test_what_was_measured_while_the_machine_was_slow_counts_as_what_it_takes_at_its_usual_speed() -> None:
    quick = joined([record("a", 1.0, generate=0.5), record("a", 1.0)])
    halved = joined([record("b", 4.0, generate=0.5, speed=50.0), record("b", 2.0)])
    assert halved["step_s"] == 3.0
    a, b = at_one_speed([quick, halved])
    assert (a["step_s"], a["rounds_s"]) == (1.0, quick["rounds_s"])
    assert (b["step_s"], b["rounds_s"], b["phases_s"]) == (
        2.0,
        [[2.0], [2.0]],
        {"generate": pytest.approx(0.25 * 2 / 3)},
    )


def test_steps_beside_which_no_speed_was_measured_stay_as_they_are() -> None:
    known = {name: value for name, value in rounds_of("a", 1.0, 3.0).items() if name != "speeds"}
    assert at_one_speed([known]) == [known]


def test_the_speed_is_that_of_a_core() -> None:
    """Whatever the machine: two measurements, one after the other, are of one order of magnitude."""
    with MachineSpeed.measured() as speed:
        first, second = speed.now(), speed.now()
    assert 0.1 < first / second < 10 and first > 1


def test_it_repeats_as_far_as_the_order_of_placements_is_the_same_in_both_rounds() -> None:
    same = [rounds_of("a", 1.0, 10.0), rounds_of("b", 2.0, 11.0), rounds_of("c", 3.0, 30.0)]
    assert repeats(same) == pytest.approx(1.0), "however much slower the second was"
    turned = [rounds_of("a", 1.0, 3.0), rounds_of("b", 2.0, 2.0), rounds_of("c", 3.0, 1.0)]
    assert repeats(turned) == pytest.approx(-1.0)
    assert repeats([rounds_of("a", 1.0), rounds_of("b", 2.0)]) is None, "nothing was repeated"
