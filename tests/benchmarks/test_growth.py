"""Slopes of memory over steps, and what is claimed of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.growth import claims, of_driver, of_rank, sen_slope, slope_of
from benchmarks.own_bytes import free_bytes, own_bytes
from benchmarks.ragged_memory import LONG, ROWS, long_and_even, rows_of


@given(slope=st.integers(-50, 50), start=st.integers(0, 1000), count=st.integers(3, 40))
def test_a_line_has_its_own_slope_and_no_doubt(slope: int, start: int, count: int) -> None:
    assert sen_slope([start + slope * step for step in range(count)]) == (slope, slope, slope)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=40))
def test_an_interval_holds_its_slope(values: list[float]) -> None:
    slope, low, high = sen_slope(values)
    assert low <= slope <= high


def test_noise_is_flat_and_growth_shows_through_it() -> None:
    noise = np.random.default_rng(0).normal(0, 40, 160)
    _, low, high = sen_slope(noise)
    assert low <= 0 <= high
    slope, low, _ = sen_slope(noise + 2 * np.arange(160))
    assert low > 1.5 and slope == pytest.approx(2, abs=0.3)


def test_one_jump_is_no_growth() -> None:
    """As where a heap takes another piece of memory once."""
    slope, low, high = sen_slope([0.0] * 30 + [4096.0] * 170)
    assert (slope, low, high) == (0, 0, 0)


def test_two_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match=r"^2 values have no slope"):
        sen_slope([1.0, 2.0])


def test_what_fills_in_the_first_fifth_is_not_seen_and_calls_of_a_step_count_together() -> None:
    filled = [*range(0, 1000, 50), *([1000] * 80)]
    assert slope_of(filled)["slope"] == 0
    assert slope_of([float(call) for call in range(400)], per_step=4)["slope"] == 4


def build_found(before: float = 0.0, own: float = 0.0, store: float = 0.0, peak: float = 1.0) -> dict[str, Any]:
    """A measurement in which these grow by so many KiB in each of ten steps."""
    found = {"call": "actor.update_actor", "peak": 1.0}
    lines = [
        {**found, "before": 1024 * before * step, "own": 1024 * own * step, "free": 1e6 * step} for step in range(10)
    ]
    driver = [
        {"own": 1.0, "free": 1e6 * step, "objects": 5.0, "store": 1024 * store * step, "folder": 9.0 * step}
        for step in range(10)
    ]
    rows = {"wire": 1.0, "packed": 1.0, "peak": peak, "padded": 300.0}
    return {"ranks": {"actor-0": of_rank(lines, 10)}, "driver": of_driver(driver), "ragged": rows}


@pytest.mark.parametrize(
    ("grows", "broken"),
    [({}, None), ({"before": 1}, "tensors"), ({"own": 9}, "own"), ({"store": 9}, "store"), ({"peak": 2}, "ragged")],
)
def test_each_claim_can_fail(grows: dict[str, float], broken: str | None) -> None:
    held = claims(build_found(**grows))
    assert [claim for claim, holds in held.items() if not holds] == ([broken] if broken else [])


def test_even_rows_have_the_tokens_of_those_with_a_long_one() -> None:
    uneven, even = long_and_even()
    assert sum(uneven) == sum(even) and max(uneven) == LONG and max(even) - min(even) <= 1
    rows = rows_of(uneven)
    assert len(rows) == ROWS and int(rows.lengths("prompt_ids").sum() + rows.lengths("response_ids").sum()) == sum(even)


def test_what_malloc_keeps_is_in_use_by_nobody() -> None:
    """Half of many small blocks that lie between others, which are kept: malloc cannot give them back."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(2048) for _ in range(2000)]
    before = free_bytes()
    for block in blocks[::2]:
        libc.free(block)
    kept = free_bytes() - before
    for block in blocks[1::2]:
        libc.free(block)
    assert 1000 * 2048 * 0.8 < kept < own_bytes()
