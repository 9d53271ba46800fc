"""Settings of a schedule, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.scheduling import SchedulePolicy, policy_of


def test_parts_of_a_step_are_all_of_it_and_even() -> None:
    policy = SchedulePolicy(10, minibatches=4)
    assert [policy.part_size(part, 10) for part in range(4)] == [2, 3, 2, 3]
    assert sum(policy.part_size(part, 3) for part in range(4)) == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompts_per_step": 0}, "prompts_per_step = 0: at least 1"),
        ({"prompts_per_step": 2, "max_staleness": -1}, "max_staleness = -1: at least 0"),
        ({"prompts_per_step": 2, "slots": 0}, "slots = 0: at least 1"),
        ({"prompts_per_step": 2, "minibatches": 3}, "minibatches = 3: each needs a prompt"),
        ({"prompts_per_step": 2, "spare_prompts": 1, "max_staleness": 1}, "goes with max_staleness = 0"),
        ({"prompts_per_step": 2, "spare_prompts": 1, "slots": 4}, "leave slots out"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SchedulePolicy(**settings)


def test_a_named_schedule_can_be_changed() -> None:
    assert policy_of("async", 8, max_staleness=3).max_in_flight == 32
    with pytest.raises(KeyError):
        policy_of("asynchronous", 8)
