"""What is kept where not everything can be."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.report.choices import clipped, evenly, short, told


@given(st.integers(0, 300))
def test_an_even_order_has_each_number_once_the_ends_first(count: int) -> None:
    order = evenly(count)
    assert sorted(order) == list(range(count))
    assert order[:2] == [0, count - 1][: min(count, 2)] if count != 1 else order == [0]


@given(st.integers(2, 300), st.data())
def test_every_beginning_of_it_is_spread_out(count: int, data: st.DataObject) -> None:
    """No gap is more than four times what equal ones would be: a level of halving is begun before it is done."""
    some = data.draw(st.integers(2, count))
    kept = sorted(evenly(count)[:some])
    assert max(after - before for before, after in pairwise(kept)) <= 4 * (count / (some - 1)) + 1


@given(st.floats(allow_nan=True) | st.integers() | st.text() | st.none() | st.booleans())
def test_a_short_number_is_near_and_finite(value: object) -> None:
    found = short(value)
    json.dumps(found, allow_nan=False)
    if found is not None:
        assert isinstance(value, int | float) and found == pytest.approx(value, rel=1e-4)


def test_what_is_no_finite_number_is_none() -> None:
    assert [short(value) for value in (float("nan"), float("inf"), 10**400, "1", True, None)] == [None] * 6
    assert short(64.0) == 64 and isinstance(short(64.0), int) and short(1 / 3) == 0.33333


@given(st.text(max_size=300), st.integers(10, 100))
def test_a_clipped_text_has_its_ends_and_says_how_much_is_gone(text: str, most: int) -> None:
    found = clipped(text, most)
    if len(text) <= most:
        assert found == text
    else:
        assert found.startswith(text[: most // 3]) and found.endswith(text[-(most - most // 3) :])
        assert f"[… {len(text) - most} characters are not shown …]" in found


def test_any_value_is_told_as_text() -> None:
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]
    assert told("a", 9) == "a" and told({"a": [1, None]}, 99) == '{"a": [1, null]}' and told(nested, 9) == "…"
