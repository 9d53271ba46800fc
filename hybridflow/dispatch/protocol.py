"""A protocol: two pure functions over a layout, and the decorator that gives a method its protocol.

`distribute` turns one call on a role into one call a rank; `collect` turns what the ranks gave into one result.
Neither sees Ray, a tensor or a clock: rows are anything with `len`, `select` and a `concat` (a `Batch`, a `BatchRef`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, TypeVar

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.batch import batch as batches
from hybridflow.batch import ref as refs
from hybridflow.parallel.layout import Layout
from hybridflow.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Call:
    """The arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def map(self, change: Callable[[Any], Any]) -> Call:
        """The same call with every argument changed."""
        return Call(tuple(map(change, self.args)), {name: change(value) for name, value in self.kwargs.items()})

    def rows(self) -> BatchRef | Batch | None:
        """The first argument that has rows, or None."""
        return next((value for value in (*self.args, *self.kwargs.values()) if is_rows(value)), None)


class Protocol:
    """Base of all protocols.

    Both methods are pure. `distribute` gives one `Call` for every rank of the layout, by rank. `collect` is given one
    output for every rank, by rank, and is also used for what else a rank reports (metrics), so it must treat outputs
    as values to choose from and to join with `concat`.
    """

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        """One call a rank."""
        raise NotImplementedError

    def collect(self, layout: Layout, outputs: list[Any]) -> Any:
        """One result."""
        raise NotImplementedError


protocols: Registry[type[Protocol]] = Registry("dispatch protocol", "hybridflow.dispatch.builtin")


def register(name: str) -> Callable[[type[Protocol]], type[Protocol]]:
    """Give a protocol its name. Raises TypeError at once if its two methods do not have the protocol's parameters."""

    def add(cls: type[Protocol]) -> type[Protocol]:
        if not (inspect.isclass(cls) and issubclass(cls, Protocol)):
            raise TypeError(f"protocol {name!r}: {cls!r} must be a class derived from Protocol")
        for method, wanted in (("distribute", ["self", "layout", "call"]), ("collect", ["self", "layout", "outputs"])):
            found = list(inspect.signature(getattr(cls, method)).parameters)
            if getattr(cls, method) is getattr(Protocol, method) or found != wanted:
                raise TypeError(f"protocol {name!r}: {cls.__name__} must define {method}({', '.join(wanted)})")
        return protocols.register(name)(cls)

    return add


@dataclass(frozen=True)
class Method:
    """What a role's method declares.

    Attributes:
        protocol: the name of its protocol.
        needs: the columns that it reads; only these travel. None: all columns.
        may: columns that it reads too where they are there.
        gives: the columns that it adds, one row for each row it was given. None: not said; if it is annotated to
            return a Batch, a call waits for the ranks to learn them.
        returns_rows: whether it returns a Batch.
    """

    protocol: str
    needs: tuple[str, ...] | None = None
    gives: tuple[str, ...] | None = None
    returns_rows: bool = False
    may: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...] | None:
        """The columns that travel; None: all."""
        return None if self.needs is None else (*self.needs, *self.may)


def using(
    protocol: str, *, needs: Sequence[str] | None = None, may: Sequence[str] = (), gives: Sequence[str] | None = None
) -> Callable[[F], F]:
    """Declare a method's protocol and columns; see `Method`."""

    def mark(function: F) -> F:
        annotation = getattr(function, "__annotations__", {}).get("return")
        function.__dispatch__ = Method(  # type: ignore[attr-defined]
            protocol,
            needs=None if needs is None else tuple(needs),
            gives=None if gives is None else tuple(gives),
            returns_rows=gives is not None or "Batch" in str(getattr(annotation, "__name__", annotation)),
            may=tuple(may),
        )
        return function

    return mark


def methods(cls: type) -> dict[str, Method]:
    """The declared methods of a class, its bases' included; an override inherits its base's declaration.

    Raises KeyError if one names a protocol that does not exist.
    """
    found: dict[str, Method] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if hasattr(value, "__dispatch__"):
                found[name] = value.__dispatch__
    for method in found.values():
        protocols.get(method.protocol)
    return found


# What distribute and collect are written with.


def is_rows(value: object) -> bool:
    """Whether an argument is split by rows; everything else is passed to all."""
    return isinstance(value, (Batch, BatchRef))


def take(call: Call, rows: np.ndarray) -> Call:
    """The call with those rows of every argument that has rows."""
    return call.map(lambda value: value.select(rows) if is_rows(value) else value)


def count(call: Call) -> int:
    """How many rows a call has; 0 if none of its arguments has rows. Raises ValueError if two disagree."""
    counts = {len(value) for value in (*call.args, *call.kwargs.values()) if is_rows(value)}
    if len(counts) > 1:
        raise ValueError(f"arguments of one call have different numbers of rows: {sorted(counts)}")
    return counts.pop() if counts else 0


@singledispatch
def join(first: Any, outputs: Sequence[Any]) -> Any:
    """Outputs of ranks as one: rows end to end; values that are not rows as a list (None if all are None)."""
    return None if all(output is None for output in outputs) else list(outputs)


@join.register
def _(first: Batch, outputs: Sequence[Any]) -> Batch:
    return batches.concat(outputs)


@join.register
def _(first: BatchRef, outputs: Sequence[Any]) -> BatchRef:
    return refs.concat(outputs)


def concat(outputs: Sequence[Any]) -> Any:
    """Outputs of ranks as one result; see `join`."""
    return join(outputs[0], outputs)
