"""Grader `math_verify`: what is equal, what hangs, and what there is to say without the package."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.errors import HybridFlowError
from hybridflow.tasks import math_grader
from hybridflow.tasks.graded_row import GradedRow
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.grading_process import GradingOrder, GradingProcess
from hybridflow.tasks.math_grader import MathVerifyGrader

HANGS = "$9^{9^{9^{9}}}$"


@pytest.mark.parametrize(
    ("response", "answer", "equal"),
    [
        (r"\boxed{\frac12}", "1/2", True),
        ("$0.5$", r"\frac12", True),
        ("The answer is 0.5", r"$\frac{1}{2}$", True),
        (r"\frac12", "0.5", True),
        ("12", r"\frac12", False),
        (r"\boxed{\{2,1\}}", r"\{1,2\}", True),
        (r"\boxed{\{2,3\}}", r"\{1,2\}", False),
        ("$(0,1]$", "(0,1]", True),
        ("$(0,1)$", "(0,1]", False),
        ("$[0,1)$", "(0,1]", False),
        (r"\boxed{5\text{ cm}}", "5", True),
        ("$5$ cm", r"5\text{ cm}", True),
        (r"\boxed{x=5}", "5", True),
        ("0.5", "50%", True),
        ("1000", "1,000", True),
        (r"$2\sqrt3$", r"\sqrt{12}", True),
        ("$3+2x$", "2x+3", True),
        ("3", r"\boxed{3}", True),
        ("4", "3", False),
        ("first 3, then \\boxed{4}", "3", False),
        ("", "3", False),
        (r"$\begin{pmatrix}1\\2\end{pmatrix}$", r"\begin{pmatrix} 1 \\ 2\end{pmatrix}", True),
        ("anything at all", "3", False),
        ("$" + "(" * 50, "3", False),
        (r"\frac{" * 30, "3", False),
    ],
)
def test_equal_mathematics(response: str, answer: str, equal: bool) -> None:
    assert MathVerifyGrader()(response, answer) == float(equal)


@given(response=st.text(max_size=40) | st.text("0123456789+-/_{}()[]\\$frac,.xe% ", max_size=24))
@settings(max_examples=40, deadline=None)
def test_no_response_breaks_it(response: str) -> None:
    assert MathVerifyGrader(timeout_s=1)(response, "3") in (0.0, 1.0)


@pytest.mark.processes
def test_what_takes_too_long_is_not_equal() -> None:
    options = {"timeout_s": 1}
    process = GradingProcess(GradingOrder([bind("math_verify", options)], [options]))
    (outcome,) = process.grade(0, [GradedRow(HANGS, "3")])
    process.close()
    assert outcome and outcome.grade and outcome.grade.value == 0.0


def test_elsewhere_than_in_a_main_thread_it_sets_no_alarm() -> None:
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append((MathVerifyGrader()("$0.5$", "1/2"), MathVerifyGrader()._limit()))
    )
    thread.start()
    thread.join()
    assert found == [(1.0, None)]


@pytest.mark.processes
def test_the_deadline_of_a_row_ends_what_its_own_does_not() -> None:
    options = {"timeout_s": 60}
    process = GradingProcess(GradingOrder([bind("math_verify", options)], [options], deadline_s=5.0))
    outcomes = process.grade(0, [GradedRow(HANGS, "3"), GradedRow("$3$", "3")])
    process.close()
    assert [outcome and (outcome.grade.value if outcome.grade else outcome.kind) for outcome in outcomes] == [
        "late",
        1.0,
    ]


def test_an_answer_without_mathematics_is_refused_before_it_is_used() -> None:
    check = bind("math_verify").check_answer
    assert check is not None
    check("72")
    for answer in ("", "$$"):
        with pytest.raises(ValueError, match="reads no mathematics"):
            check(answer)


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_grader, "find_spec", lambda name: None)
    with pytest.raises(HybridFlowError, match=r"pip install 'hybridflow\[math\]'"):
        bind("math_verify")
