"""How rows are spread over the learner's slots and generation's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybridflow.scheduling.lent_slots import spread

POOLS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), min_size=1, max_size=3)


@given(rows=st.integers(0, 60), pools=POOLS)
def test_every_row_goes_to_one_pool_and_none_could_have_gone_to_a_freer_one(
    rows: int, pools: list[tuple[int, int]]
) -> None:
    had, replicas = [pool[0] for pool in pools], [pool[1] for pool in pools]
    taken = spread(rows, had, replicas)
    assert sum(taken) == rows and min(taken) >= 0
    for own, before, count in zip(taken, had, replicas, strict=True):
        last = (before + own - 1) / count  # what its last row found there
        others = zip(taken, had, replicas, strict=True)
        assert not own or all(last <= (there + more) / size for more, there, size in others)


def test_idle_pools_take_rows_as_one_pool_of_all_their_replicas_would() -> None:
    assert spread(32, [0, 0], [1, 1]) == [16, 16]
    assert spread(32, [0, 0], [1, 3]) == [8, 24]
    assert spread(1, [0, 0], [1, 3]) == [1, 0]
    assert spread(5, [4, 0], [1, 1]) == [1, 4], "the one that has rows under way takes fewer"
