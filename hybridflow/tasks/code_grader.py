"""Grader `code_tests`: a Python program in a response, run against the tests of its row in a sandbox."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from time import monotonic
from typing import Any

from hybridflow.bounds import Count, Positive
from hybridflow.errors import HybridFlowError, shown
from hybridflow.tasks.fenced_block import last_fenced_block
from hybridflow.tasks.graded_row import GradedRow
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.sandbox import Limits, Sandbox

Test = str | tuple[str, str]
"""Python code that must run to its end; or what a program is given to read and what it must write."""


@graders.register("code_tests")
class CodeTestsGrader:
    """Give 1.0 if the program in the last fenced block, or else the whole response, passes all tests of the row.

    Args:
        field: the field of a row's metadata that has its tests: a list of `{stdin: …, stdout: …}` (or `input`,
            `output`) and of texts, Python code with asserts; or such a list as JSON text; or one text of asserts.
        partial: the share of tests that pass in place of all or nothing.
        test_s: seconds that a test may take.
        row_s: seconds that all tests of a row may take together; those that are left then have not passed.
        memory_mb: megabytes of address space that a process may have.
        processes: how many it may have at the same time.
        file_mb: megabytes that a file, its output, and all its files may have.

    Raises HybridFlowError where there is no sandbox.
    """

    def __init__(
        self,
        *,
        field: str = "tests",
        partial: bool = False,
        test_s: Positive = 5.0,
        row_s: Positive = 30.0,
        memory_mb: Count = 1024,
        processes: Count = 16,
        file_mb: Count = 16,
    ) -> None:
        self._field = field
        self._partial = partial
        self._test_s = test_s
        self._row_s = row_s
        try:
            self._sandbox = Sandbox(Limits(memory_mb, processes, file_mb))
        except HybridFlowError as error:
            raise HybridFlowError(f"grader code_tests runs no program outside of a sandbox: {error}") from error

    def __call__(self, row: GradedRow) -> float:
        tests = row_tests(row.metadata, self._field)
        block = last_fenced_block(row.response)
        program = row.response if block is None else block
        ends = monotonic() + self._row_s
        passed = 0
        for test in tests:
            left = min(self._test_s, ends - monotonic())
            if left > 0 and self._passes(program, test, left):
                passed += 1
            elif not self._partial:
                return 0.0
        return passed / len(tests)

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Raise ValueError for a row without tests."""
        row_tests(metadata, self._field)

    def _passes(self, program: str, test: Test, timeout_s: float) -> bool:
        if isinstance(test, str):
            return self._sandbox.passes(program, test, timeout_s)
        stdin, stdout = test
        ended = self._sandbox.run(program, stdin, timeout_s)
        return ended.status == 0 and _lines(ended.output) == _lines(stdout)


def row_tests(metadata: Mapping[str, Any], field: str) -> list[Test]:
    """Return the tests of a row. Raises ValueError if it has none, or something else."""
    given = metadata.get(field)
    if isinstance(given, str):
        given = _parsed(given)
    if not isinstance(given, list) or not given:
        raise ValueError(
            f"{field!r} of the row's metadata is {shown(given)}; a list of tests was expected, each {{stdin, stdout}} "
            "or a text of asserts"
        )
    return [_test(field, number, test) for number, test in enumerate(given)]


def _parsed(text: str) -> Any:
    """Read JSON text of a list; any other text is one test."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, list) else [text]


def _test(field: str, number: int, test: Any) -> Test:
    if isinstance(test, str) and test.strip():
        try:
            ast.parse(test)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # no response could pass it
            raise ValueError(f"test {number} in {field!r} of the row's metadata is no Python: {error}") from error
        return test
    if isinstance(test, Mapping):
        stdin = test.get("stdin", test.get("input", ""))
        stdout = test.get("stdout", test.get("output"))
        if isinstance(stdin, str) and isinstance(stdout, str):
            return stdin, stdout
    raise ValueError(
        f"test {number} in {field!r} of the row's metadata is {shown(test)}; {{stdin, stdout}}, both texts, or a text "
        "of asserts was expected"
    )


def _lines(text: str) -> list[str]:
    """Return the lines of an output, less white space at their ends and empty lines at its end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
