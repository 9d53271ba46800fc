"""Graders: what is right, what is not, and that no text breaks them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.tasks import graders


@pytest.mark.parametrize(
    ("response", "grade"),
    [("125", 1.0), (" 125\n", 1.0), ("1 25", 0.0), ("0125", 0.0), ("125.", 0.0), ("521", 0.0), ("", 0.0)],
)
def test_exact(response: str, grade: float) -> None:
    assert graders.get("exact")(response, "125") == grade


@pytest.mark.parametrize(
    ("response", "answer", "grade"),
    [
        ("11", "11", 1.0),
        ("Tom has 4 + 7 = 11 apples.", "11", 1.0),
        ("11 apples, that is 4 + 7", "11", 0.0),
        ("It is **11**.", "11", 1.0),
        ("111", "11", 0.0),
        ("1 1", "11", 0.0),
        ("11.0", "11", 1.0),
        ("4.11", "11", 0.0),
        ("12,345 in all", "12345", 1.0),
        ("first 12, then 345", "345", 1.0),
        ("It is -3", "-3", 1.0),
        ("It is -3", "3", 0.0),
        ("10-3", "3", 1.0),
        ("eleven", "11", 0.0),
        ("", "0", 0.0),
        ("007", "7", 1.0),
        ("9" * 10_000, "11", 0.0),
    ],
)
def test_last_number(response: str, answer: str, grade: float) -> None:
    assert graders.get("last_number")(response, answer) == grade


@given(before=st.text(), number=st.integers(-(10**30), 10**30), after=st.text(st.characters(exclude_categories=["N"])))
def test_last_number_finds_it_in_any_text(before: str, number: int, after: str) -> None:
    assert graders.get("last_number")(f"{before} {number} {after}", str(number)) == 1.0


@given(response=st.text(), answer=st.integers())
def test_a_grade_is_zero_or_one(response: str, answer: int) -> None:
    for name in ("exact", "last_number"):
        assert graders.get(name)(response, str(answer)) in (0.0, 1.0)


@pytest.mark.parametrize("answer", ["blue", "", "1+1"])
def test_last_number_needs_a_number_to_compare_with(answer: str) -> None:
    with pytest.raises(ValueError, match="a number was expected"):
        graders.get("last_number")("11", answer)
