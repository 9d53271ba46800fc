"""Graders: what is right, what is not, and that no text breaks them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.tasks import graders
from hybridflow.tasks.written_numbers import last_number, whole_number


@pytest.mark.parametrize(
    ("response", "grade"),
    [("125", 1.0), (" 125\n", 1.0), ("1 25", 0.0), ("0125", 0.0), ("125.", 0.0), ("521", 0.0), ("", 0.0)],
)
def test_exact(response: str, grade: float) -> None:
    assert graders.get("exact")(response, "125") == grade


def test_exact_takes_both_spellings_of_an_accent() -> None:
    assert graders.get("exact")("cafe\u0301", "caf\u00e9 ") == graders.get("exact")("caf\u00e9", "cafe\u0301") == 1.0


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
        ("That makes $1,234.50.", "1234.5", 1.0),
        ("12-5", "5", 1.0),
        ("from 5–7", "7", 1.0),
        ("top-5", "5", 1.0),
        ("$12-$5", "5", 1.0),
        ("x=-5", "-5", 1.0),
        ("1/2", "0.5", 1.0),
        ("0.5", "1/2", 1.0),
        ("1 1/2", "1.5", 1.0),
        (r"1\frac{1}{2}", "1.5", 1.0),
        (r"-\frac{1}{2}", "-.5", 1.0),
        (r"\frac12", ".5", 1.0),
        ("5/0", "0", 0.0),
        ("on 12/5/2024", "2024", 1.0),
        ("0.33", "1/3", 0.0),
        (r"2 \times 10^{3}", "2e3", 1.0),
        ("72 cm^2", "72", 1.0),
        ("1.2.3", "3", 1.0),
        ("and so on...5", "5", 1.0),
        ("1,2,3", "3", 1.0),
        ("1\u202f000", "1000", 1.0),
        ("1{,}000", "1000", 1.0),
        ("\uff11\uff12", "12", 1.0),
        ("NaN", "5", 0.0),
        (" sNaN", "0", 0.0),
        ("Infinity", "1e9999", 0.0),
        ("1e9999999999", "1", 0.0),
        ("-₹5", "-5", 1.0),
        ("500", "₩500", 1.0),
        ("-US$5", "$-5", 1.0),
        ("3½", "3.5", 1.0),
        ("-½", "-1/2", 1.0),
        ("1\u20442", "0.5", 1.0),
        ("\u0667\u0662", "72", 1.0),
        ("\u22125", "\u20125", 1.0),
        ("45", r"45^\circ", 1.0),
        ("45°", r"45^{\circ}", 1.0),
        (r"\frac{1.5}{2}", "0.75", 1.0),
        (r"\cfrac{ 1 }{ 2 }", "0.5", 1.0),
        (r"\frac{1{,}000}{3}", "1000/3", 1.0),
        ("6.02×10²³", "6.02e23", 1.0),
        ("5·10⁻³", "0.005", 1.0),
        ("10^3", "1000", 1.0),
        ("2*10^3", "2000", 1.0),
        ("2^10", "10", 1.0),
        ("72 cm²", "72", 1.0),
        ("x = - 5", "-5", 1.0),
        ("- 5 apples", "5", 1.0),
        ("1'000 or 1\u2019000", "1000", 1.0),
        ("1_000", r"1\!,000", 1.0),
        ("x_1", "1", 1.0),
        ("\u200b72\ufeff", "72\u200b", 1.0),
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


USUAL = [
    ("1,000", 1000), ("$72$", 72), (".5", 0.5), ("-$5", -5), ("−5", -5), ("1/2", 0.5), ("3.0", 3), ("5%", 5),
    (r"\boxed{72}", 72), (r"\frac{1}{2}", 0.5), ("1e3", 1000), ("72.", 72), ("$-5$", -5), (r"\(72\)", 72), ("+5", 5),
    (r"72\%", 72), (r"\$5", 5), ("(−3)", -3), (" 7\n", 7), ("**11**", 11), ("1.5e-3", 0.0015), ("€1,000", 1000),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), USUAL)
def test_usual_spellings_are_read_alike_on_both_sides(written: str, value: float) -> None:
    grade = graders.get("last_number")
    for answer in (written, value, str(value)):
        assert grade(f"So it is {written}", answer) == grade(str(value), answer) == 1.0
        assert grade(f"So it is {written}", answer) == 1.0 and grade(f"{written}, no: 12345", answer) == 0.0


@given(st.fractions(-(10**6), 10**6, max_denominator=999))
def test_a_fraction_is_its_value(value: Fraction) -> None:
    latex = rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    for written in (f"{value.numerator}/{value.denominator}", latex, f"${latex}$", rf"\boxed{{{latex}}}"):
        assert last_number(f"It is {written}.") == whole_number(written) == value


@given(st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=3))
def test_thousands_and_minus_signs_change_no_value(value: Decimal) -> None:
    for written in (f"{value:,}", f"{value:,}".replace("-", "−"), f"${value:,}$", f"{value:E}", f"{value:,}%"):
        assert last_number(f"It is {written}.") == whole_number(written) == Fraction(value)


@given(a=st.integers(0, 10**9), b=st.integers(0, 10**9))
def test_a_subtraction_has_no_sign(a: int, b: int) -> None:
    assert last_number(f"{a}-{b}") == last_number(f"({a})-{b}") == last_number(f"${a}-${b}") == b


@given(st.text("0123456789.,-−/%$eE{}\\^ abfrc\u202f", max_size=60))
def test_no_spelling_breaks_it(text: str) -> None:
    found = last_number(text)
    assert found is None or found == found
    assert graders.get("last_number")(text, "1") in (0.0, 1.0)


@pytest.mark.parametrize(
    "text", ["9" * 50_000, "1 " * 20_000, "1/" * 20_000, "1," * 20_000, "-" * 50_000, "\\frac" * 9000]
)
def test_long_texts_take_no_time(text: str) -> None:
    start = process_time()
    last_number(text), whole_number(text)
    assert process_time() - start < 2.0


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("yes", "yes\n"),
        ("5", 5),
        ("5", np.int64(5)),
        ("5", 5.0),
        ("0.5", 0.5),
        ("True", True),
        ("5", Decimal("5.0")),
        ("0.1", np.float32(0.1)),
        ("0.1", np.float16(0.1)),
        ("2", np.float32(2)),
        ("5", np.array(5)),
    ],
)
def test_exact_takes_both_sides_alike(response: str, answer: object) -> None:
    assert graders.get("exact")(response, answer) == 1.0 and graders.get("exact")(f"{response}1", answer) == 0.0


@pytest.mark.parametrize(
    "answer", ["blue", "", "1+1", "NaN", " sNaN", "Infinity", "-inf", "12-5", "5/0", "7 of 9", "x"]
)
def test_last_number_needs_a_number_to_compare_with(answer: str) -> None:
    with pytest.raises(ValueError, match="a number was expected"):
        graders.get("last_number")("11", answer)


@pytest.mark.parametrize(
    "answer", [None, [], ["5"], {}, float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), b"5"]
)
def test_what_is_no_text_and_no_number_is_no_answer(answer: object) -> None:
    for name in ("exact", "last_number"):
        with pytest.raises(ValueError, match="a text or a finite number was expected"):
            graders.get(name)("5", answer)
