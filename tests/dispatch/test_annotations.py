"""Which methods give rows: what their annotations are, whatever they are called."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional, TypeVar

import pytest

from hybridflow.batch import Batch, BatchRef
from hybridflow.dispatch import Interface, RowsT, methods, using
from hybridflow.dispatch.annotations import by_reference, returns_rows
from hybridflow.observe.metrics import Metrics

if TYPE_CHECKING:
    import numpy.typing as npt


class Scored(Batch):
    """Rows of a class of the user's own."""


Alias = Batch
TextAlias = "Batch"
New = NewType("New", Batch)
Bound = TypeVar("Bound", bound=Scored)
Free = TypeVar("Free")


class Texts(Interface[RowsT]):
    """Annotations as text, as `from __future__ import annotations` leaves them."""

    def plain(self) -> Batch: ...
    def own(self) -> Scored: ...
    def none_too(self) -> Batch | None: ...
    def optional(self) -> Optional[Scored]: ...  # noqa: UP045
    def alias(self) -> Alias: ...
    def text_alias(self) -> TextAlias: ...  # type: ignore[valid-type]
    def new(self) -> New: ...
    def annotated(self) -> Annotated[Batch, "scores"]: ...
    def either_side(self) -> RowsT: ...
    def bound(self) -> Bound: ...
    async def waited_for(self) -> Batch: ...
    def awaitable(self) -> Awaitable[Batch]: ...
    def reference(self) -> BatchRef: ...


class Values:
    """What gives no rows, though its text may speak of them."""

    def nothing(self) -> None: ...
    def unsaid(self): ...  # type: ignore[no-untyped-def]
    def any(self) -> Any: ...
    def number(self) -> float: ...
    def metrics(self) -> Metrics: ...
    def batches(self) -> list[Batch]: ...
    def batches_of_this_module(self) -> dict[str, Batch | None]: ...
    def free(self, value: Free) -> Free: ...
    def of_type_checkers(self) -> list[npt.ArrayLike]: ...
    def itself(self) -> Values: ...


def methods_of(cls: type) -> list[Callable[..., Any]]:
    return [value for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("method", methods_of(Texts), ids=lambda method: method.__name__)
def test_rows_are_known_by_their_class(method: Callable[..., Any]) -> None:
    assert returns_rows(method, Texts)


@pytest.mark.parametrize("method", methods_of(Values), ids=lambda method: method.__name__)
def test_all_else_is_a_value(method: Callable[..., Any]) -> None:
    assert not returns_rows(method, Values)


def returning(annotation: Any) -> Callable[..., Any]:
    def method(self: Any) -> None: ...

    method.__annotations__ = {"return": annotation}
    return method


@pytest.mark.parametrize("annotation", [Batch, Scored, Batch | None, New, Alias, "Alias", "'Batch'", RowsT, Bound])
def test_an_annotation_may_be_an_object(annotation: Any) -> None:
    assert returns_rows(returning(annotation), Texts)


def test_a_class_that_is_called_batch_is_none_of_ours() -> None:
    class Batch:
        pass

    assert not returns_rows(returning(Batch), Texts)


@pytest.mark.parametrize("annotation", ["Batch | Metrics", Batch | int, "Scored | list[Batch] | None"])
def test_rows_or_a_value_is_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match=r"Texts.method: .* as rows and as another value: .* declare `gives`"):
        returns_rows(returning(annotation), Texts)


@pytest.mark.parametrize("annotation", ["Elsewhere", "npt.Scores", "Elsewhere | None", "Elsewhere[Batch]", "no type"])
def test_what_cannot_be_resolved_is_refused(annotation: str) -> None:
    with pytest.raises(TypeError, match=r"Texts.method: its return is annotated as .* cannot be resolved .* `gives`"):
        returns_rows(returning(annotation), Texts)


def test_our_names_are_known_where_only_a_type_checker_imports_them() -> None:
    method = FunctionType(returning(None).__code__, {})  # of a module that has no names at all
    method.__annotations__ = {"return": "Batch | None"}
    assert returns_rows(method, Texts)


def test_parameters_that_are_rows_go_by_reference() -> None:
    def method(self: Any, rows: Batch, more: Scored | None, number: int, bare, either: RowsT) -> None: ...  # type: ignore

    found = {name: by_reference(method, one) for name, one in inspect.signature(method).parameters.items()}
    found.pop("self")
    bare = found.pop("bare")
    assert bare is inspect.Parameter.empty
    assert found == {"rows": "BatchRef", "more": "BatchRef | None", "number": "int", "either": "BatchRef"}


def test_methods_know_which_of_them_give_rows() -> None:
    class Scorer:
        @using("dp_proto")
        def score(self, rows: Batch) -> Batch | None: ...

        @using("dp_proto")
        def clone(self, rows: Batch) -> Scorer: ...

        @using("dp_proto", gives=["score"])
        def said(self, rows: Batch) -> Elsewhere: ...  # type: ignore[name-defined]  # noqa: F821

    assert {name: method.returns_rows for name, method in methods(Scorer).items()} == {
        "score": True,
        "clone": False,
        "said": True,
    }


def test_an_annotation_that_says_nothing_is_an_error_unless_the_columns_are_given() -> None:
    class Scorer:
        @using("dp_proto")
        def score(self, rows: Batch) -> Elsewhere: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"Scorer\.score: its return is annotated as Elsewhere, which cannot be"):
        methods(Scorer)


def test_the_former_name_of_optional_is_told() -> None:
    with pytest.raises(TypeError, match="`may` is called `optional` now"):
        using("dp_proto", may=["bonus"])  # type: ignore[arg-type]
