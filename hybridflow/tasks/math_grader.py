"""Grader `math_verify`: mathematical equality, as the package math-verify reads and compares expressions."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import Any

from hybridflow.bounds import Count
from hybridflow.errors import HybridFlowError, shown
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.written_numbers import as_text

MARKED = ("$", r"\boxed", r"\(", r"\[")


@graders.register("math_verify")
class MathVerifyGrader:
    """Give 1.0 if the response's mathematics equals the answer's: numbers, expressions, sets, intervals; else 0.0.

    Args:
        timeout_s: seconds that reading a side, and comparing both, may take each; what takes longer is not equal.

    Raises HybridFlowError if the package is not installed.
    """

    def __init__(self, *, timeout_s: Count = 5) -> None:
        if find_spec("math_verify") is None:
            raise HybridFlowError(
                "grader math_verify needs the package math-verify, which is not installed: pip install "
                "'hybridflow[math]'"
            )
        self._timeout_s = timeout_s

    def __call__(self, response: str, answer: str) -> float:
        from math_verify import verify

        expected = self._read_answer(answer)
        if response.strip() == answer.strip():
            return 1.0
        found = self._read(response) or self._read(f"${response}$")
        return float(bool(found) and verify(expected, found, timeout_seconds=self._limit()))

    def check_answer(self, answer: str) -> None:
        """Raise ValueError for an answer in which no mathematics is found."""
        self._read_answer(as_text(answer))

    def _read_answer(self, answer: str) -> list[Any]:
        expected = self._read(answer if any(mark in answer for mark in MARKED) else f"${answer}$")
        if not expected:
            raise ValueError(
                f"grader math_verify: the answer is {shown(answer)}, in which it reads no mathematics; use `exact`"
            )
        return expected

    def _read(self, text: str) -> list[Any]:
        from math_verify import parse

        return list(parse(text, parsing_timeout=self._limit()))

    def _limit(self) -> int | None:
        """Return its own limit where its alarm can ring, in a main thread; elsewhere the deadline of the row is one."""
        return self._timeout_s if threading.current_thread() is threading.main_thread() else None
