"""Numbers as people and models write them, and answers as text. Text is only ever searched, never executed.

A number is a fraction of two integers, so `1/2`, `0.5` and `\\frac{1}{2}` are one value and nothing is rounded. A
percent sign and a currency say what is counted, and change no value: `5%` is 5, as `$5` is.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from hybridflow.errors import shown

LONGEST = 4000  # characters of a number; there is no answer beyond it, only a model that repeats itself

_GAP = "\u202f"
_KNOWN = {
    **dict.fromkeys("−﹣－–‒‐‑", "-"),  # noqa: RUF001
    **dict(zip("．，％＋／⁄∕’·", ".,%+///'×", strict=True)),  # noqa: RUF001
    **dict.fromkeys("\u00a0\u202f\u2009\u2007", _GAP),
    "°": "",
}


class _Alike(dict[int, str]):
    """Table for `str.translate` that spells alike what reads alike: digits of any script, currencies, minus signs,
    fractions.
    """

    def __missing__(self, code: int) -> str:
        spelling = self[code] = _alike(chr(code))
        return spelling


def _alike(char: str) -> str:
    kind = unicodedata.category(char)
    if char in _KNOWN:
        return _KNOWN[char]
    if kind == "Nd":
        return str(unicodedata.digit(char))
    if kind == "Sc":
        return "$"
    if unicodedata.decomposition(char).startswith("<fraction>"):
        return unicodedata.normalize("NFKC", char).replace("\u2044", "/")
    return "" if kind == "Cf" else char  # marks without a width


_ALIKE = _Alike()
_RAISED = re.compile(r"(?<=10)[⁺⁻]?[⁰¹²³⁴-⁹]+")
_BEHIND_DIGIT = re.compile(r"(?<=[0-9])(?=[¼-¾⅐-⅞])")
_POWER = r"\^(?:\{([-+]?[0-9]{1,4})\}|([-+]?[0-9]{1,4}))"
_OVER = r"(?:\{\s?(-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\s?\}|([0-9]))\s?(?:\{\s?(-?[0-9]+)\s?\}|([0-9]))"
_SPELLINGS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<![0-9/])[0-9]+(?:/[0-9]+){2,}"), lambda date: date[0].replace("/", " ")),
    (re.compile(r"\\(?:left|right|displaystyle|mathrm|text|,(?![0-9])|!(?![0-9,]))"), " "),
    (re.compile(r"(?<=[0-9])(?:\{,\}|\\,|\\!,?|,\\!|\\ )(?=[0-9]{3})"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^(?:\\circ|\{\\circ\})"), ""),
    # One digit each, or braces: \frac12, \dfrac{-3}{4}. A whole number before it is part of a mixed one: 1\frac{1}{2}.
    (re.compile(rf"(?<=[0-9])\s?\\[dtc]?frac\s?(?!\{{\s?-){_OVER}"), r" \1\2/\3\4"),
    (re.compile(rf"\\[dtc]?frac\s?{_OVER}"), r"\1\2/\3\4"),
    (re.compile(rf"(?<=[0-9])\s?(?:\\times|\\cdot|×|\*)\s?10{_POWER}"), r"e\1\2"),
    (re.compile(rf"(?<![0-9A-Za-z.,^])10{_POWER}"), r"1e\1\2"),
    (re.compile(r"(?<=[A-Za-z}])\^(?:\{[0-9]+\}|[0-9]+)"), ""),  # of a unit or a variable: 72 cm^2
)
_SIGNED = re.compile(r"(?<=[=({])\s?-\s(?=[0-9.$\\])")  # x = - 5; a dash elsewhere begins a line or subtracts

# A minus after a digit, a letter or a closing bracket is a subtraction or a hyphen ("12-5", "top-5"), not a sign.
_COIN = r"(?:[A-Z]{0,2}\$){0,2}"
_SIGN = rf"(?:(?<![0-9A-Za-z)\]}}%$])(?P<sign>[-+]){_COIN}|(?<=\$)(?<![0-9A-Za-z)\]}}%]\$)(?P<inner>[-+]))?"
_DIGITS = rf"(?:[0-9]{{1,3}}(?:[,'_{_GAP}][0-9]{{3}})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]+)?|(?<![0-9A-Za-z.)\]])\.[0-9]+)"
_EXPONENT = r"(?:[eE][-+]?[0-9]{1,4}(?![0-9A-Za-z]))?"
_UNDER = r"(?:/-?[0-9]+(?![0-9/]|\.[0-9]))?"
_NUMBER = re.compile(rf"{_SIGN}(?P<mixed>[0-9]+ (?=[0-9]+/[0-9]))?(?P<value>{_DECIMAL}{_EXPONENT})(?P<under>{_UNDER})")
_AROUND = re.compile(r"\\boxed|\\[()\[\]]|\b[A-Z]{1,2}(?=\$)|[\s$%.,{}()\[\]*]")


def plain(text: str) -> str:
    """Normalize a text so that what is written in several ways has one spelling."""
    if not text.isascii():
        text = _RAISED.sub(lambda power: f"^{{{unicodedata.normalize('NFKC', power[0])}}}", text)
        text = _BEHIND_DIGIT.sub(" ", text).translate(_ALIKE)
    if any(mark in text for mark in "\\^/{"):
        for pattern, spelling in _SPELLINGS:
            text = pattern.sub(spelling, text)
    return _SIGNED.sub("-", text)


def last_number(text: str) -> Fraction | None:
    """Return the value of the last number in a text; None if there is none, or it has no value (`5/0`)."""
    last = None
    for last in _NUMBER.finditer(plain(text)):  # noqa: B007
        pass
    return _value(last) if last else None


def whole_number(text: str) -> Fraction | None:
    """Return the value of a text that is one number, with only a currency, a percent sign or brackets around it."""
    text = plain(text)
    matches = list(_NUMBER.finditer(text))
    if len(matches) != 1 or _AROUND.sub("", text[: matches[0].start()] + text[matches[0].end() :]):
        return None
    return _value(matches[0])


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > LONGEST:
        return None
    over = Fraction(Decimal(re.sub(rf"[,'_{_GAP}]", "", match["value"])))
    under = int(match["under"][1:]) if match["under"] else 1
    if not under:
        return None
    value = over / under
    value += int(match["mixed"] or 0) if value < 1 else 0
    return -value if "-" in (match["sign"], match["inner"]) else value


def as_text(answer: Any) -> str:
    """Return the text of an answer; a number as it is usually written, a whole one without a decimal point.

    Raises ValueError for what is neither a text nor a finite number.
    """
    if isinstance(answer, np.ndarray) and answer.ndim == 0:
        answer = answer[()]
    if isinstance(answer, np.float16 | np.float32):
        answer = float(str(answer))  # 0.1, and not 0.10000000149011612, which no response says
    elif isinstance(answer, np.generic):
        answer = answer.item()
    if isinstance(answer, str):
        return str(answer)
    finite = answer.is_finite() if isinstance(answer, Decimal) else isinstance(answer, float) and math.isfinite(answer)
    if finite:
        # From 1e16 on a float skips integers, and its own text, as 1e+16, says so.
        return str(int(answer)) if abs(answer) < 1e16 and answer == int(answer) else str(answer)
    if isinstance(answer, int | Fraction):
        return str(answer)
    raise ValueError(
        f"the answer is {shown(answer)}, of type {type(answer).__name__}; a text or a finite number was expected"
    )
