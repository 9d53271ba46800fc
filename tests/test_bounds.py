"""What a number may be, as annotations say it."""

from functools import partial
from typing import Annotated, Optional

import pytest

from hybridflow.bounds import Bounds, Number, endless, number, parameters

LEVEL = Annotated[float, Bounds(at_least=0, less_than=1)]


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (int, Number(int)),
        (float | None, Number(float, optional=True)),
        (LEVEL, Number(float, Bounds(at_least=0, less_than=1))),
        (LEVEL | None, Number(float, Bounds(at_least=0, less_than=1), optional=True)),
        (Annotated[Optional[float], Bounds(more_than=1)], Number(float, Bounds(more_than=1), optional=True)),  # noqa: UP045
        (Annotated[LEVEL, Bounds(at_most=2)], Number(float, Bounds(at_most=2))),
        (Annotated[str, Bounds(at_most=2)], None),
        (bool, None),
        (int | str, None),
    ],
)
def test_an_annotation_declares_a_number(annotation, found):
    assert number(annotation) == found


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 0.999])
def test_what_is_inside_is_right(value):
    assert Number(float, Bounds(at_least=0, less_than=1)).problem(value) is None


@pytest.mark.parametrize("value", [1, -1e-9, float("nan"), float("inf"), "0.5", True, None, [0.5], 10**400])
def test_what_is_outside_is_told(value):
    assert "given" in (Number(float, Bounds(at_least=0, less_than=1)).problem(value) or "")


def test_a_whole_number_takes_no_other():
    assert Number(int).problem(1.0) == "1.0 given, a whole number was expected"
    assert Number(int, optional=True).problem(None) is None


def test_bounds_in_words():
    assert str(Bounds(more_than=0, at_most=2)) == "more than 0 and at most 2"
    assert str(Bounds(at_least=1, also={-1: "all"})) == "at least 1, or -1 for all"
    assert str(Number(float, Bounds(because="of its scale"), optional=True)) == "any number, or null"
    with pytest.raises(ValueError, match="give a limit, or say because of what"):
        Bounds()


def test_single_values_beside_the_limits_are_right():
    bounds = Bounds(at_least=1, also={-1: "all"})
    assert [value for value in range(-2, 3) if bounds.allow(value)] == [-1, 1, 2]


def test_numbers_that_no_bounds_are_known_for():
    assert endless(2**63 - 1) is None and endless(3e38) is None and endless("nan") is None
    assert endless(2**63) and endless(float("-inf")) and endless(-1e39)


def test_parameters_of_functions_and_constructors():
    def weigh(rows: "Unknown", *, least: LEVEL = 0.5, name: str = "a", most: float | None = None): ...  # noqa: F821
    def checked(rows, *, scale: "float | 'Unknown'" = 1.0, kind: "int.none" = 0, least: "LEVEL" = 0.5): ...  # noqa: F821

    class Move:
        def __init__(self, coef: float, gain: LEVEL = 0.1) -> None: ...

    assert parameters(weigh) == {"least": number(LEVEL), "most": Number(float, optional=True)}
    assert parameters(Move) == {"coef": Number(float), "gain": number(LEVEL)}
    assert parameters(checked) == {"least": number(LEVEL)}, "what only a type checker can read declares nothing"


def test_parameters_of_what_can_be_called_like_a_function():
    class Weigh:
        def __call__(self, rows, *, least: LEVEL = 0.5, times: int = 2): ...

    def shift(rows, *, by: float, least: LEVEL = 0.5): ...

    assert parameters(Weigh()) == {"least": number(LEVEL), "times": Number(int)}
    assert parameters(partial(shift, by=1.0)) == {"by": Number(float), "least": number(LEVEL)}
