"""Annotations that speak of rows: of a method's return, which its group must know before a call, and of parameters.

Annotations are resolved as Python resolves them, never read as text. Names that a module imports for type checkers
alone are taken for ours where hybridflow exports them; any other stands for something that is not known here.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, ForwardRef, TypeVar, Union, get_args, get_origin, get_type_hints

from hybridflow.batch import Batch, BatchRef
from hybridflow.dispatch.interface import Result, RowsT, Streamed

OURS: Mapping[str, Any] = {
    "Batch": Batch,
    "BatchRef": BatchRef,
    "Result": Result,
    "RowsT": RowsT,
    "Streamed": Streamed,
}
AWAITABLES = (Awaitable, Coroutine)


class _Opaque(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):  # Python asks every object for these
            raise AttributeError(name)
        return cls


class Unseen(metaclass=_Opaque):
    """Stand-in for a name that only a type checker can see, for its attributes and for what is made of it."""

    def __class_getitem__(cls, _: Any) -> type:
        return cls


def returns_rows(function: Callable[..., Any], owner: type) -> bool:
    """Tell whether a method without `gives` is annotated to return rows: a `Batch` or a subclass, or None beside it.

    Args:
        owner: the class that defines it.

    Raises TypeError if its annotation says both rows and another value, or names what cannot be resolved.
    """
    prefix = f"{owner.__name__}.{function.__name__}: its return is annotated as {_text(function)}"
    kinds = _kinds(resolve(function, "return", {owner.__name__: owner}))
    if kinds == {True, False}:
        raise TypeError(f"{prefix}, so as rows and as another value: annotate it as one of them, or declare `gives`")
    if None in kinds:
        raise TypeError(
            f"{prefix}, which cannot be resolved where it is defined, so whether it gives rows is not known: import "
            "the name at run time too, or declare `gives`"
        )
    return True in kinds


def by_reference(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return a parameter's annotation as the controller sees it, where rows go by reference."""
    if parameter.annotation is parameter.empty:
        return parameter.annotation
    hint = resolve(function, parameter.name)
    if _kinds(hint) != {True}:
        return parameter.annotation
    return "BatchRef | None" if NoneType in get_args(hint) else "BatchRef"


def resolve(function: Callable[..., Any], name: str, names: Mapping[str, Any] | None = None) -> Any:
    """Evaluate one annotation of a function; without one Any. What only a type checker can see of it is `Unseen`.

    Args:
        name: of a parameter, or `return`.
        names: known beside those of its module, as that of a class that is still being made.
    """
    annotations = getattr(function, "__annotations__", {})
    if name not in annotations:
        return Any
    # One at a time, for another annotation may name anything.
    alone = SimpleNamespace(__annotations__={name: annotations[name]})
    module = getattr(inspect.unwrap(function), "__globals__", {})
    known = dict(names or {})
    while True:
        try:
            return get_type_hints(alone, module, known)[name]
        except NameError as error:
            if error.name is None or error.name in known:
                return Unseen
            known[error.name] = OURS.get(error.name, Unseen)
        except Exception:  # a text that is no expression, an operation that its operands do not have
            return Unseen


def _kinds(hint: Any) -> set[bool | None]:
    """Tell of each alternative of an annotation, but None, whether it is rows; None: it is not known."""
    if hint is Unseen or isinstance(hint, ForwardRef):
        return {None}
    kind = get_origin(hint) or hint
    if isinstance(kind, TypeVar):
        return _of_all(kind.__constraints__ or (kind.__bound__ or Any,))
    if kind in (Union, UnionType):
        return _of_all(alternative for alternative in get_args(hint) if alternative is not NoneType)
    if kind in AWAITABLES:
        return _kinds(get_args(hint)[-1])
    # `type Rows = Batch` has a value, NewType("Rows", Batch) a supertype.
    made_of = getattr(kind, "__value__", None) or getattr(kind, "__supertype__", None)
    if made_of is not None:
        return _kinds(made_of)
    return {isinstance(kind, type) and issubclass(kind, Batch | BatchRef)}


def _of_all(hints: Iterable[Any]) -> set[bool | None]:
    return {kind for hint in hints for kind in _kinds(hint)}


def _text(function: Callable[..., Any]) -> str:
    annotation = function.__annotations__.get("return")
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
