"""What is checked of a method's arguments and result."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.batch import Batch
from hybridflow.dispatch import Call, Method
from hybridflow.dispatch.column_checks import check_given, check_returned, check_streamed

DECLARED = Method("dp_proto", gives=("good", "also"), returns_rows=True)
THREE = Call((Batch(n=np.arange(3)),))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Batch(good=np.zeros(3)), r"declares the columns \('good', 'also'\), it returned \('good',\)"),
        (Batch(good=np.zeros(3), also=np.zeros(3), more=np.zeros(3)), "'more'"),
        (None, "it returned NoneType"),
        ([1, 2, 3], "it returned list"),
    ],
)
def test_other_columns_than_declared(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_returned(DECLARED, value, THREE)


def test_rows_where_none_are_declared_and_none_where_they_are() -> None:
    with pytest.raises(TypeError, match=r"declares that it gives no rows .*it returned Batch"):
        check_returned(Method("dp_proto"), Batch(good=np.zeros(3)), THREE)
    with pytest.raises(TypeError, match=r"declares that it gives rows .*it returned NoneType"):
        check_returned(Method("dp_proto", returns_rows=True), None, THREE)


@pytest.mark.parametrize("rows", [2, 4])
def test_other_rows_than_given(rows: int) -> None:
    with pytest.raises(ValueError, match=f"given 3 rows and returned {rows}"):
        check_returned(DECLARED, Batch(good=np.zeros(rows), also=np.zeros(rows)), THREE)


@pytest.mark.parametrize(
    ("declared", "value", "given"),
    [
        (DECLARED, Batch(also=np.zeros(3), good=np.zeros(3)), THREE),
        (DECLARED, Batch(), THREE),  # a rank whose output is not chosen
        (DECLARED, Batch(also=np.zeros(5), good=np.zeros(5)), Call()),  # no rows were given
        (Method("dp_proto"), 5, THREE),  # a value
        (Method("dp_proto", returns_rows=True), Batch(any=np.zeros(2)), THREE),  # rows of which nothing was said
    ],
)
def test_what_is_right(declared: Method, value: object, given: Call) -> None:
    check_returned(declared, value, given)


def build_pieces(*numbers: list[int]) -> list[tuple[np.ndarray, Batch]]:
    return [(np.array(n), Batch(good=np.zeros(len(n)), also=np.zeros(len(n)))) for n in numbers]


@pytest.mark.parametrize("numbers", [[[0, 1, 2]], [[2], [0, 1]], [[1], [2], [0]]])
def test_a_stream_passes_in_pieces(numbers: list[list[int]]) -> None:
    assert [rows.tolist() for rows, _ in check_streamed(DECLARED, build_pieces(*numbers), THREE)] == numbers


@pytest.mark.parametrize(
    ("streamed", "message"),
    [
        (build_pieces([0, 2]), "given 3 rows and gave 2"),
        (build_pieces([0, 2], [1, 2]), "gave row 2 twice"),
        ([(np.array([0, 1]), build_pieces([0])[0][1])], "gave 1 rows for 2 row numbers"),
    ],
)
def test_a_stream_has_each_row_once(streamed: list[tuple[np.ndarray, Batch]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(check_streamed(DECLARED, streamed, THREE))


KINDS = Method("dp_proto", gives=("good",), returns_rows=True, kinds={"n": "int", "good": "float"})


def test_other_kinds_than_declared() -> None:
    with pytest.raises(TypeError, match="column 'n' is declared as int, the method was given float"):
        check_given(KINDS, Call((Batch(n=np.zeros(2)),)))
    with pytest.raises(TypeError, match="column 'n' is declared as int, the method was given object"):
        check_given(KINDS, Call((), {"rows": Batch(n=["a", "b"])}))
    with pytest.raises(TypeError, match="column 'good' is declared as float, the method returned int"):
        check_returned(KINDS, Batch(good=np.arange(3)), THREE)


def test_what_is_empty_is_of_any_kind() -> None:
    check_given(KINDS, Call((Batch(n=np.zeros(0)), "text")))
    check_returned(KINDS, Batch(good=np.zeros(0, dtype=np.int64)), Call((Batch(n=np.arange(0)),)))
