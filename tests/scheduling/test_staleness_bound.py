"""What must be chosen now, so that nothing is learned from too late."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from hybridflow.scheduling.rollout_state import Rollout
from hybridflow.scheduling.schedule_policy import SchedulePolicy
from hybridflow.scheduling.staleness_bound import choose, owed


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=8), st.integers(1, 3), st.integers(1, 3))
def test_a_choice_is_found_if_and_only_if_there_is_one(known: list[tuple[int, bool]], size: int, seats: int) -> None:
    policy = SchedulePolicy(seats, max_staleness=3)
    rollouts = [Rollout(prompt, 0, due, finished=0 if done else None) for prompt, (due, done) in enumerate(known)]
    debts = owed(policy, 0, 0, size, rollouts)
    finished = [rollout for rollout in rollouts if rollout.finished is not None]
    possible = [
        chosen
        for chosen in combinations(finished, size)
        if all(sum(rollout.due <= due for rollout in chosen) >= debt for due, debt in debts.items())
    ]
    chosen = choose(finished, size, debts)
    assert (chosen is None) == (not possible)
    if chosen is not None:
        assert tuple(chosen) in possible
        assert chosen[0] == min(possible, key=lambda choice: [rollout.prompt for rollout in choice])[0]


def test_the_oldest_prompt_is_waited_for_when_its_last_seat_is_the_next() -> None:
    """A budget of prompts in flight would let the younger one pass, and the older one grow too old."""
    policy = SchedulePolicy(1, max_staleness=1)
    old = Rollout(0, version=0, due=1)
    young = Rollout(1, version=1, due=2, finished=0)
    assert choose([young], 1, owed(policy, 1, 0, 1, [old, young])) is None
    assert choose([young], 1, owed(policy, 0, 0, 1, [old, young])) == [young]
