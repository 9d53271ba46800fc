"""Pools that carry out jobs: in order, each when what it waits for is done."""

from __future__ import annotations

from hybridflow.planning.simulated_pools import DRIVER, Job, SimulatedPools


def carried_out(pools: SimulatedPools) -> list[tuple[str, float, float]]:
    """Let pools do all that they have; each job's method, begin and end, as they end."""
    now = 0.0
    while numbers := pools.at_work():
        work = pools.next_end(numbers)
        pools.advance(numbers, now, work)
        now += work
        while pools.end(numbers, now) is not None:
            numbers = pools.at_work()
    return [(span.method, span.begin, span.end) for span in pools.spans]


def test_a_pool_does_its_jobs_in_order_even_if_a_later_one_could_begin() -> None:
    pools = SimulatedPools()
    pools.give([
        Job("a", "actor", "generate", 5.0),
        Job("b", "critic", "values", 1.0, after=(0,)),
        Job("b", "critic", "other", 1.0),
    ])  # fmt: skip
    assert carried_out(pools) == [("generate", 0.0, 5.0), ("values", 5.0, 6.0), ("other", 6.0, 7.0)]


def test_places_are_among_the_jobs_that_are_given_together() -> None:
    pools = SimulatedPools()
    pools.give([Job("a", "actor", "first", 1.0)])
    numbers = pools.give([Job("b", "critic", "second", 4.0), Job("a", "actor", "third", 1.0, after=(0,))])
    assert [*numbers] == [1, 2]
    assert carried_out(pools) == [("first", 0.0, 1.0), ("second", 0.0, 4.0), ("third", 4.0, 5.0)]
    assert not pools.is_busy("a")


def test_a_pool_that_is_held_rests() -> None:
    pools = SimulatedPools()
    pools.give([Job("a", "actor", "learn", 1.0), Job("b", "critic", "learn", 1.0)])
    pools.held = ("a",)
    assert pools.ranks(pools.at_work()) == 1.0
    pools.held = ()
    assert len(pools.at_work()) == 2


def test_the_driver_sends_what_is_ready_first() -> None:
    pools = SimulatedPools()
    pools.give([
        Job("a", "actor", "generate", 5.0),
        Job(DRIVER, DRIVER, "dispatch", 1.0, after=(0,)),
        Job("a", "actor", "score", 2.0, after=(1,)),
        Job(DRIVER, DRIVER, "dispatch", 1.0),
        Job("b", "critic", "values", 1.0, after=(3,)),
    ])  # fmt: skip
    assert carried_out(pools) == [
        ("dispatch", 0.0, 1.0),
        ("values", 1.0, 2.0),
        ("generate", 0.0, 5.0),
        ("dispatch", 5.0, 6.0),
        ("score", 6.0, 8.0),
    ]  # fmt: skip
