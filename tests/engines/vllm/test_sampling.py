"""Row seeds: from run, step, sample and copy, and from nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.engines.vllm.sampling import row_seeds

rows = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 64)), min_size=1, max_size=20, unique=True)


def seeds(run: int, step: int, keys: list[tuple[int, int]]) -> list[int]:
    samples, copies = np.array(keys, dtype=np.int64).T
    return row_seeds(run, step, samples, copies)


@given(rows, st.integers(0, 100), st.integers(0, 10**6))
def test_a_row_keeps_its_seed_in_any_company(keys: list[tuple[int, int]], run: int, step: int) -> None:
    together = dict(zip(keys, seeds(run, step, keys), strict=True))
    for key in keys:
        assert seeds(run, step, [key]) == [together[key]]
    assert seeds(run, step, keys[::-1]) == seeds(run, step, keys)[::-1]


def test_rows_steps_copies_and_runs_have_seeds_of_their_own() -> None:
    keys = [(sample, copy) for sample in range(10) for copy in range(10)]
    drawn = [seed for run in range(3) for step in range(10) for seed in seeds(run, step, keys)]
    assert len(set(drawn)) == len(drawn) == 3000
    assert all(0 <= seed < 2**32 for seed in drawn)
