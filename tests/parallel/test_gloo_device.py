"""Process groups of a rank share one gloo device, and nothing is kept of what they did."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.parallel import gloo_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks


def test_a_group_adds_its_two_workers_and_no_thread_that_listens(ranks2: Ranks) -> None:
    assert ranks2.run(rank_functions.threads_a_group, shared=True) == [2.0, 2.0]


def test_torch_itself_still_makes_a_device_for_each_group(ranks2: Ranks) -> None:
    """Once it does not, `gloo_device` is not needed any longer."""
    assert ranks2.run(rank_functions.threads_a_group, shared=False) == [3.0, 3.0]


def test_groups_meet_at_once_on_the_one_device_and_each_waits_as_long_as_it_was_told(ranks2: Ranks) -> None:
    for sums, timeout in ranks2.run(rank_functions.sums_in_many_groups):
        assert sums == [1.0, 3.0, 5.0, 7.0]
        assert timeout == timedelta(seconds=17)


def test_torch_keeps_no_stacks_of_collectives(ranks2: Ranks) -> None:
    assert ranks2.run(rank_functions.noted_collectives) == [0, 0]
