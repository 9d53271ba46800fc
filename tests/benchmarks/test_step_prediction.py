"""Rounds of measured steps: what a record of several says, and how well a measurement repeats."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measured_steps import joined
from benchmarks.step_prediction import mean_prediction, repeats


def record(variant: str, *steps_s: float, generate: float = 0.0, tokens: float = 8.0) -> dict[str, Any]:
    """What a round says of a variant."""
    phases = {"generate": generate} if generate else {}
    middle = sorted(steps_s)[len(steps_s) // 2]
    return {
        "model": "small", "workload": "short", "variant": variant, "step_s": middle, "steps_s": list(steps_s),
        "phases_s": phases, "shares_prompts": True, "response_tokens": [tokens] * 16,
    }  # fmt: skip


def rounds_of(variant: str, *steps_s: float) -> dict[str, Any]:
    """Rounds of one step each."""
    return joined([record(variant, seconds) for seconds in steps_s])


def test_a_record_of_rounds_has_their_medians() -> None:
    rounds = [record("a", 1.0, 2.0, 9.0, generate=0.5), record("a", 4.0, 4.5, 5.0, tokens=4.0), record("a", 3.0)]
    found = joined(rounds)
    assert (found["step_s"], found["rounds_s"]) == (4.0, [[1.0, 2.0, 9.0], [4.0, 4.5, 5.0], [3.0]]), (
        "of all steps, not of rounds' medians: 3"
    )
    assert found["phases_s"] == {"generate": 0.0} and "steps_s" not in found
    assert found["response_tokens"][0] == 4.0 and found["response_tokens"][-1] == 8.0
    assert (found["model"], found["variant"], found["shares_prompts"]) == ("small", "a", True)


def test_what_profiles_say_counts_as_much_each() -> None:
    """Twice and half as much as was measured are as wrong as one another."""
    row = {"variant": "a", "measured_s": 4.0, "phases": {"generate": [1.0, 0.0]}, "predicted_s": 8.0, "error": 1.0}
    other = {**row, "phases": {"generate": [1.0, 3.0]}, "predicted_s": 2.0, "error": -0.5}
    found = mean_prediction([row, other])
    assert (found["predicted_s"], found["error"], found["phases"]) == (4.0, 0.0, {"generate": [1.0, 1.5]})
    assert mean_prediction([row]) == row


def test_it_repeats_as_far_as_the_order_of_placements_is_the_same_in_both_rounds() -> None:
    same = [rounds_of("a", 1.0, 10.0), rounds_of("b", 2.0, 11.0), rounds_of("c", 3.0, 30.0)]
    assert repeats(same) == pytest.approx(1.0), "however much slower the second was"
    turned = [rounds_of("a", 1.0, 3.0), rounds_of("b", 2.0, 2.0), rounds_of("c", 3.0, 1.0)]
    assert repeats(turned) == pytest.approx(-1.0)
    assert repeats([rounds_of("a", 1.0), rounds_of("b", 2.0)]) is None, "nothing was repeated"
