"""Row seeds: from run, step and stream, and from nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.engines.row_seeds import row_seeds

streams = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20, unique=True)


def seeds(run: int, step: int, ids: list[int]) -> list[int]:
    return row_seeds(run, step, ids, Counter())


@given(streams, st.integers(0, 100), st.integers(0, 10**6))
def test_a_row_keeps_its_seed_in_any_company(ids: list[int], run: int, step: int) -> None:
    together = dict(zip(ids, seeds(run, step, ids), strict=True))
    for stream in ids:
        assert seeds(run, step, [stream]) == [together[stream]]
    assert seeds(run, step, ids[::-1]) == seeds(run, step, ids)[::-1]


def test_streams_steps_and_runs_have_seeds_of_their_own() -> None:
    ids = [*range(50), *range(2**32, 2**32 + 50)]
    drawn = [seed for run in range(3) for step in range(10) for seed in seeds(run, step, ids)]
    assert len(set(drawn)) == len(drawn) == 3000
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert len({seed % 2**32 for seed in drawn}) == 3000, "a generator on a CPU takes these bits only"


def test_a_stream_that_is_drawn_from_again_goes_on() -> None:
    """A worker may ask twice in one call, or for several rows of one."""
    before: Counter[int] = Counter()
    first, second = row_seeds(1, 0, [7, 8, 7], before), row_seeds(1, 0, [7, 8], before)
    assert len({*first, *second}) == 5
    assert first[:2] == seeds(1, 0, [7, 8])


@given(st.lists(st.integers(0, 2**63 - 1), max_size=5), st.integers(0, 2**70), st.integers(0, 2**40), st.integers(0, 3))
def test_seeds_are_those_of_numpys_seed_sequence(ids: list[int], run: int, step: int, times: int) -> None:
    before = Counter(dict.fromkeys(ids, times))
    words = [(run, step, stream >> 32, stream & 0xFFFFFFFF, times) for stream in dict.fromkeys(ids)]
    expected = [int(np.random.SeedSequence(one).generate_state(1, np.uint64)[0] >> 1) for one in words]
    assert row_seeds(run, step, [*dict.fromkeys(ids)], before) == expected


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 was given"):
        row_seeds(-1, 0, [1], Counter())
