"""Our graders: pure functions of two texts. Nothing in a response is ever executed."""

from __future__ import annotations

import unicodedata
from fractions import Fraction

from hybridflow.errors import shown
from hybridflow.tasks import written_numbers
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.written_numbers import as_text


@graders.register("exact")
def exact(response: str, answer: str) -> float:
    """Return 1.0 if the response is the answer, white space at the ends of both aside; else 0.0.

    An accented letter is the same whether it is written as one character or as two (Unicode's normal form C).
    """
    actual, expected = (unicodedata.normalize("NFC", text).strip() for text in (response, as_text(answer)))
    return float(actual == expected)


@graders.register("last_number")
def last_number(response: str, answer: str) -> float:
    """Return 1.0 if the last number in the response has the answer's value, else 0.0 (also if there is no number).

    Both may be written as `written_numbers` reads them: `1,000`, `$-5$`, `.5`, `1/2`, `5%`, `1e3`. Raises ValueError if
    the answer is not a number.
    """
    expected = number_of(answer)
    return float(written_numbers.last_number(response) == expected)


def number_of(answer: str) -> Fraction:
    """Return the value of an answer that is a number. Raises ValueError if it is none."""
    value = written_numbers.whole_number(as_text(answer))
    if value is None:
        raise ValueError(f"grader last_number: the answer is {shown(answer)}, a number was expected; use `exact`")
    return value


# Asked of every row before a run relies on it.
exact.check_answer = as_text  # type: ignore[attr-defined]
last_number.check_answer = number_of  # type: ignore[attr-defined]
# Two ways of writing a number are one answer.
last_number.answer_key = lambda response: str(written_numbers.last_number(response))  # type: ignore[attr-defined]


@graders.register("has_seven")
def has_seven(response: str, answer: str) -> float:
    """Return 1.0 if the response has the digit 7, whatever the answer is; else 0.0: a cost to try a limit with."""
    return float("7" in response)
