"""Registering protocols and declaring methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow import dispatch
from hybridflow.batch import Batch, BatchRef
from hybridflow.dispatch import Call, Method, Protocol, methods, protocols, register, using
from hybridflow.parallel.layout import Layout


@register("first_half")
class FirstHalf(Protocol):
    """What a user would write: the first half of the ranks gets the rows, the others none."""

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        half = max(1, layout.size // 2)
        owners = np.arange(dispatch.count(call)) * half // max(1, dispatch.count(call))
        return [dispatch.take(call, np.flatnonzero(owners == rank)) for rank in range(layout.size)]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return dispatch.concat(outputs)


def test_a_protocol_of_a_user() -> None:
    found = protocols.get("first_half")()
    calls = found.distribute(Layout(data=4), Call((BatchRef.from_local(Batch(x=np.arange(5))),)))
    assert [len(call.args[0]) for call in calls] == [3, 2, 0, 0]
    collected = found.collect(Layout(data=4), [call.args[0] for call in calls])
    assert collected.get().dense("x").tolist() == [0, 1, 2, 3, 4]


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"no dispatch protocol is named '3d_prot'; did you mean '3d_proto'\?"):
        protocols.get("3d_prot")


def test_a_name_belongs_to_one_protocol() -> None:
    with pytest.raises(ValueError, match=r"'first_half' is registered twice.*FirstHalf.*Other"):

        @register("first_half")
        class Other(FirstHalf):
            pass


def test_a_method_left_out_is_named() -> None:
    with pytest.raises(TypeError, match=r"'incomplete': Incomplete must define collect\(self, layout, outputs\)"):

        @register("incomplete")
        class Incomplete(Protocol):
            def distribute(self, layout: Layout, call: Call) -> list[Call]:
                return []

    assert "incomplete" not in protocols


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(TypeError, match=r"Swapped must define distribute\(self, layout, call\)"):

        @register("swapped")
        class Swapped(FirstHalf):
            def distribute(self, call: Any, layout: Any) -> list[Call]:  # type: ignore[override]
                return []


@pytest.mark.parametrize("thing", [object, lambda layout, call: []])
def test_only_protocols_are_registered(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"derived from Protocol; a method of a role takes .* @dispatch\.using\('"):
        register("not_a_protocol")(thing)


class Scorer:
    @using("dp_proto", needs=["x"], gives=["score"])
    def score(self, batch: Batch) -> Batch:
        return Batch(score=batch.dense("x") * 2)

    @using("one_to_all")
    def reset(self) -> None: ...

    def helper(self) -> None: ...


class LoudScorer(Scorer):
    def score(self, batch: Batch) -> Batch:
        return super().score(batch)

    @using("3d_proto")
    def reset(self) -> None: ...


def test_methods_are_those_declared() -> None:
    assert methods(Scorer) == {
        "score": Method("dp_proto", ("x",), ("score",), returns_rows=True),
        "reset": Method("one_to_all"),
    }


def test_an_override_inherits_or_replaces_its_declaration() -> None:
    assert methods(LoudScorer) == {
        "score": Method("dp_proto", ("x",), ("score",), returns_rows=True),
        "reset": Method("3d_proto"),
    }


def test_a_method_annotated_with_a_batch_returns_rows() -> None:
    class Undeclared:
        @using("dp_proto")
        def rows(self, batch: Batch) -> Batch: ...

        @using("dp_proto")
        def number(self, batch: Batch) -> float: ...

        @using("dp_proto", gives=["x"])
        def bare(self, batch):  # type: ignore[no-untyped-def]
            ...

    found = {name: method.returns_rows for name, method in methods(Undeclared).items()}
    assert found == {"rows": True, "number": False, "bare": True}


def test_a_declared_method_is_called_as_ever() -> None:
    assert LoudScorer().score(Batch(x=np.array([1, 2]))).dense("score").tolist() == [2, 4]


def test_a_method_with_an_unknown_protocol_is_refused() -> None:
    class Wrong:
        @using("nowhere")
        def go(self) -> None: ...

    with pytest.raises(
        KeyError, match=r"Wrong\.go: no dispatch protocol is named 'nowhere'. Known: .*3d_proto, .*dp_proto"
    ):
        methods(Wrong)


@pytest.mark.parametrize(
    "columns", [{"needs": {"x": "flaot"}}, {"optional": {"x": "flaot"}}, {"gives": {"x": "flaot"}}]
)
def test_a_kind_that_does_not_exist_is_refused(columns: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"no kind of column is 'flaot'; there are bool, int, float"):
        using("dp_proto", **columns)  # type: ignore[arg-type]


def test_kinds_of_columns_are_declared_with_them() -> None:
    class Kinds:
        @using("dp_proto", needs={"ids": "ragged int"}, gives={"score": "float"}, blocking=True)
        def score(self, rows: Batch) -> Batch: ...

    found = methods(Kinds)["score"]
    assert found.needs == ("ids",) and found.gives == ("score",) and found.blocking
    assert found.kinds == {"ids": "ragged int", "score": "float"}


def test_take_touches_rows_only() -> None:
    ref = BatchRef.from_local(Batch(y=np.arange(3) * 10))
    call = dispatch.take(Call((ref, [1, 2, 3]), {"ref": ref}), np.array([2, 0]))
    assert call.args[0].get().dense("y").tolist() == [20, 0]
    assert call.args[1] == [1, 2, 3]
    assert [run[1:] for run in call.kwargs["ref"].sources[0].runs] == [(2, 3), (0, 1)]


def test_concat_by_kind() -> None:
    assert dispatch.concat([None, None]) is None
    assert dispatch.concat([1, None]) == [1, None]
    assert dispatch.concat([BatchRef.from_chunk("a", 1, ("x",)), None, BatchRef.from_chunk("b", 2, ("x",))]).rows == 3


@given(st.permutations(range(7)), st.integers(1, 4))
def test_rows_come_back_in_the_order_of_the_call(order: list[int], parts: int) -> None:
    """Whatever way they were dealt, and joined in whatever order."""
    call = Call((BatchRef.from_local(Batch(x=np.arange(7))),))
    dealt = [dispatch.take(call, rows).args[0] for rows in np.array_split(np.array(order), parts)]
    assert dispatch.concat(dealt[::-1]).get().dense("x").tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_parts_of_parts_come_back_too() -> None:
    call = Call((BatchRef.from_local(Batch(x=np.arange(6))),))
    odd = dispatch.take(call, np.array([5, 3, 1]))
    parts = [dispatch.take(odd, np.array([2])), dispatch.take(odd, np.array([0, 1]))]
    assert dispatch.concat([part.args[0] for part in parts]).get().dense("x").tolist() == [1, 3, 5]


def test_a_row_that_comes_twice_is_an_error() -> None:
    call = Call((BatchRef.from_local(Batch(x=np.arange(4))),))
    parts = [dispatch.take(call, np.array(rows)).args[0] for rows in ([0, 1], [1, 2])]
    with pytest.raises(ValueError, match="row 1 is in several of the outputs"):
        dispatch.concat(parts)
