"""The calling convention of graders: each kind is told by its signature, once, and brought into one form."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest

from hybridflow.bounds import Bounds
from hybridflow.errors import HybridFlowError
from hybridflow.tasks import Grade, GradedRow, graders
from hybridflow.tasks.grader_registry import BoundGrader, GraderRegistry, bind, bound, options_shell, takes_rows
from hybridflow.tasks.sound_grades import UnsoundGradeError, one_each, sound_grade

CHAT = [{"role": "user", "content": "5+7="}]
ROW = GradedRow("the answer is 12", "12", "5+7=", CHAT, metadata={"level": 3}, response_tokens=4, turn_rewards=[0.5])


def two_texts(response: str, answer: str) -> float:
    return float(answer in response)


def two_texts_with_option(response, answer, *, scale: float = 1.0):
    return scale * (answer in response)


def a_row(row: GradedRow) -> Grade:
    return Grade(float(row.answer in row.response), {"level": row.metadata["level"]})


def a_row_with_option(row: GradedRow, scale: float = 1.0) -> float:
    return scale


async def at_the_same_time(row) -> float:
    await asyncio.sleep(0)
    return float(row.answer in row.response)


async def two_texts_at_the_same_time(response: str, answer: str) -> float:
    return float(answer in response)


def batched(rows):
    return [float(row.answer in row.response) for row in rows]


class Pattern:
    """Built once with its options."""

    def __init__(self, pattern: str = "12", *, scale: Annotated[float, Bounds(at_least=0)] = 1.0) -> None:
        if pattern == "(":
            raise ValueError("the pattern is none: (")
        self.pattern = pattern
        self.scale = scale

    def __call__(self, row: GradedRow) -> float:
        return self.scale * (self.pattern in row.response)

    def check_answer(self, answer: str) -> None:
        if answer == self.pattern * 2:
            raise ValueError("no answer")


class Asks:
    async def __call__(self, response: str, answer: str) -> float:
        return float(answer in response)


def value(grader: BoundGrader, row: GradedRow = ROW) -> float:
    return sound_grade(grader, row, given_for(grader, row)).value


def given_for(grader: BoundGrader, row: GradedRow = ROW) -> Any:
    given: Any = grader.grade_rows([row])
    (grade,) = one_each(asyncio.run(given) if grader.concurrent else given, [row])
    return grade


KINDS: list[tuple[Any, bool, bool]] = [
    (two_texts, False, False),
    (two_texts_with_option, False, False),
    (lambda response, answer: 1, False, False),
    (lambda response, answer="": 1, False, False),
    (lambda *texts: 1, False, False),
    (partial(two_texts), False, False),
    (a_row, True, False),
    (a_row_with_option, True, False),
    (lambda row: 1, True, False),
    (lambda row, *, scale=1: 1, True, False),
    (at_the_same_time, True, True),
    (two_texts_at_the_same_time, False, True),
    (Pattern, True, False),
    (Pattern(), True, False),
    (Asks, False, True),
]


@pytest.mark.parametrize(("grader", "reads_rows", "concurrent"), KINDS)
def test_the_kind_is_told_by_the_signature(grader: Any, reads_rows: bool, concurrent: bool) -> None:
    made = bound("mine", grader)
    assert (made.reads_rows, made.concurrent, made.batched) == (reads_rows, concurrent, False)
    assert value(made) == 1.0


def test_one_that_is_batched_gets_all_rows_at_once() -> None:
    made = bound("mine", batched_grader := batched, batched=True)
    assert made.batched and made.grade_rows([ROW, ROW]) == batched_grader([ROW, ROW]) == [1.0, 1.0]

    async def also_async(rows: list[GradedRow], *, scale: float = 1.0) -> list[float]:
        return [scale] * len(rows)

    made = bound("mine", also_async, {"scale": 0.5}, batched=True)
    assert made.concurrent and asyncio.run(made.grade_rows([ROW, ROW])) == [0.5, 0.5]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grader", "is_batched"),
    [
        (lambda: 1, False),
        (lambda a, b, c: 1, False),
        (lambda *, row: 1, False),
        (lambda responses, answers: 1, True),
        (type("Bare", (), {}), False),
    ],
)
def test_what_can_be_called_in_no_way_is_told_where_it_is_registered(
    grader: Callable[..., Any], is_batched: bool
) -> None:
    with pytest.raises(TypeError, match=r"expected (is|of a batched one is) `def grade\("):
        GraderRegistry().register("mine", batched=is_batched)(grader)


def test_the_registry_knows_how_each_is_called() -> None:
    registry = GraderRegistry()
    registry.register("many", batched=True)(batched)
    registry.register("steps", token_rewards=True)(a_row)
    registry.register("plain")(two_texts)
    assert [registry.is_batched(name) for name in registry] == [True, False, False]
    assert [registry.gives_token_rewards(name) for name in registry] == [False, False, True]
    with pytest.raises(TypeError, match="grader 'five': a function, or what can be called like one, was expected"):
        registry.register("five")(5)  # type: ignore[arg-type]


def test_options_are_checked_as_those_of_a_task() -> None:
    assert value(bound("mine", Pattern, {"pattern": "answer", "scale": 2})) == 2.0
    assert value(bound("mine", two_texts_with_option, {"scale": 0.5})) == 0.5
    assert value(bound("mine", a_row_with_option, {"scale": 0.5})) == 0.5
    for grader, options, told in [
        (Pattern, {"patern": "a"}, "patern: no such option; did you mean 'pattern'?"),
        (Pattern, {"scale": -1.0}, "scale: -1.0 given, at least 0 expected"),
        (Pattern, {"pattern": 3}, "pattern: 3 given, of type int; str was expected"),
        (Pattern, {"pattern": "("}, "cannot be made with these options: the pattern is none: ("),
        (two_texts, {"answer": "a"}, "answer: no such option; the component takes no options"),
        (lambda row, *, pattern: 1, {}, "pattern: must be given"),
    ]:
        with pytest.raises(HybridFlowError, match="grader 'mine'") as error:
            bound("mine", grader, options)
        assert told in str(error.value)


def test_what_cannot_be_an_answer_may_depend_on_the_options() -> None:
    check = bound("mine", Pattern, {"pattern": "a"}).check_answer
    assert check is not None and check("12") is None
    with pytest.raises(ValueError, match="no answer"):
        check("aa")
    with pytest.raises(ValueError, match="a number was expected"):
        bind("last_number").check_answer("twelve")  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(graders))
def test_ours_are_graders_of_some_kind(name: str) -> None:
    component = graders.get(name)
    assert takes_rows(component, batched=graders.is_batched(name)) in (True, False)
    assert callable(options_shell(component))


def test_a_row_travels_as_json() -> None:
    assert GradedRow(*json.loads(json.dumps(list(vars(ROW).values())))) == ROW


def of_steps(**given: Any) -> BoundGrader:
    return bound("steps", lambda row: Grade(1.0, **given), token_rewards=True)


def test_a_grade_has_parts_and_values_of_tokens() -> None:
    assert value(bound("mine", a_row)) == 1.0
    given = given_for(bound("mine", a_row))
    assert sound_grade(bound("mine", a_row), ROW, given) == Grade(1.0, {"level": 3.0}, [], [])
    grader = of_steps(token_rewards=[0, 0, 1, True], step_rewards=[(16, 0.5)])
    given = given_for(grader)
    assert sound_grade(grader, ROW, given) == Grade(1.0, {}, [0.0, 0.0, 1.0, 1.0], [(16, 0.5)])


@pytest.mark.parametrize(
    ("grader", "told"),
    [
        (of_steps(token_rewards=[1.0]), "token_rewards has 1 values for the 4 tokens of the response"),
        (of_steps(token_rewards=[1.0, 1.0, 1.0, math.nan]), "a value of token_rewards is nan"),
        (of_steps(step_rewards=[3]), "step_rewards has 3; a pair"),
        (of_steps(step_rewards=[(17, 1.0)]), "a step that ends at 17; .* from 1 to 16"),
        (of_steps(step_rewards=[(0, 1.0)]), "a step that ends at 0"),
        (of_steps(parts={"a": "b"}), "part 'a' is 'b', of type str"),
        (of_steps(parts={"\x1b[2J": 1.0}), r"a part is named '\\x1b\[2J'; what can be printed was expected"),
        (of_steps(parts={"": 1.0}), "a part is named ''"),
        (of_steps(parts=[1]), r"its parts are \[1\]; numbers by name"),
        (bound("mine", lambda row: Grade(1.0, token_rewards=[1] * 4)), "token_rewards=True"),
    ],
)
def test_what_is_beside_the_value_is_checked_too(grader: BoundGrader, told: str) -> None:
    given = given_for(grader)
    with pytest.raises(UnsoundGradeError, match=told):
        sound_grade(grader, ROW, given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda rows: 1.0, "a float"),
        (lambda rows: [1.0], "1 grades for 2 rows"),
        (lambda rows: {0: 1.0, 1: 1.0}, "a dict"),
        (lambda rows: "ab", "a str"),
    ],
)
def test_one_grade_a_row_is_expected_of_a_batch(given: Callable[..., Any], told: str) -> None:
    with pytest.raises(UnsoundGradeError, match=told):
        one_each(bound("mine", given, batched=True).grade_rows([ROW, ROW]), [ROW, ROW])
