"""The profiler's measurements on two ranks."""

from __future__ import annotations

import pytest

from tests.spmd import Ranks
from tests.workers import profiler_rank_functions

pytestmark = pytest.mark.ranks


def test_each_rank_gives_sizes_and_seconds(ranks2: Ranks) -> None:
    first, second = ranks2.run(profiler_rank_functions.profiled)
    assert [row[:-1] for row in first["float32"] + first["attention"]] == [[2, 4, 8], [1, 2, 8, 16]]
    assert [row[0] for row in first["send"]] == [256, 4096]
    assert all(row[-1] > 0 for rows in first.values() for row in rows)
    assert second["of one"] == []  # it waits
    assert second["together"][0] == [0.0] and second["together"][1][0] > 0
