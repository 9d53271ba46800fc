"""How much longer the slowest rank takes than the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybridflow.controller.rank_times import RankTimes


def noted(**pools: list[float]) -> RankTimes:
    times = RankTimes()
    for pool, seconds in pools.items():
        for rank, own in enumerate(seconds):
            times.note(pool, rank, own)
    return times


def test_the_slowest_rank_is_held_against_the_median_of_the_others() -> None:
    assert noted(main=[1, 2, 9, 2]).slowest() == {"main": (2, 7)}
    assert noted(main=[3, 1], judges=[1, 4]).slowest() == {"main": (0, 2), "judges": (1, 3)}


def test_the_calls_of_a_step_add_up_and_the_next_step_begins_anew() -> None:
    times = noted(main=[1, 2])
    times.note("main", 0, 1)
    assert times.slowest() == {"main": (0, 0)}
    assert times.slowest() == {}


def test_a_pool_of_one_rank_has_no_others() -> None:
    assert noted(main=[5]).slowest() == {}


@given(st.lists(st.integers(0, 100), min_size=2, max_size=9))
def test_nobody_is_slower_than_the_slowest(seconds: list[int]) -> None:
    ((rank, longer),) = noted(main=[float(own) for own in seconds]).slowest().values()
    assert seconds[rank] == max(seconds) and 0 <= longer <= max(seconds) - min(seconds)
