"""Our graders: pure functions of two texts. Nothing in a response is ever executed."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from hybridflow.tasks.base import graders

# A minus after a digit is a subtraction ("12-5"), not a sign. Thousands may be set off by commas.
_NUMBER = re.compile(r"(?<![0-9])-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")


@graders.register("exact")
def exact(response: str, answer: str) -> float:
    """1.0 if the response is the answer, white space at its ends aside; else 0.0."""
    return float(response.strip() == answer)


@graders.register("last_number")
def last_number(response: str, answer: str) -> float:
    """1.0 if the last number in the response has the answer's value, else 0.0 (also if there is no number).

    Raises ValueError if the answer is not a number.
    """
    try:
        wanted = Decimal(answer)
    except InvalidOperation:
        raise ValueError(f"grader last_number: the answer is {answer!r}, a number was expected; use `exact`") from None
    found = _NUMBER.findall(response)
    return float(bool(found) and Decimal(found[-1].replace(",", "")) == wanted)


@graders.register("has_seven")
def has_seven(response: str, answer: str) -> float:
    """1.0 if the response has the digit 7, whatever the answer is; else 0.0. A cost to try a limit with."""
    return float("7" in response)
