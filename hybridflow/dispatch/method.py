"""The decorator that gives a role's method its protocol, and what it declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from hybridflow.batch.columns import KINDS
from hybridflow.dispatch.interface import Declared
from hybridflow.dispatch.protocol import protocols

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Columns = Iterable[str] | Mapping[str, str]


@dataclass(frozen=True)
class Method:
    """What a role's method declares.

    Attributes:
        protocol: the name of its protocol.
        needs: the columns that it reads; only these travel. None: all columns.
        optional: columns that it reads too where they are there.
        gives: the columns that it adds, one row for each row it was given. None: not said; if it is annotated to
            return a Batch, they become known when the ranks have made them.
        kinds: what some of these columns must be like (`ragged int`); a rank checks it.
        returns_rows: whether it returns a Batch.
        blocking: whether a call waits for its ranks.
        streams: whether it gives its rows a few at a time, as they finish.
        samples: whether it draws random numbers: its rows have the mark `stream_id`, a number that no other row has.
    """

    protocol: str
    needs: tuple[str, ...] | None = None
    gives: tuple[str, ...] | None = None
    returns_rows: bool = False
    optional: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    blocking: bool = False
    streams: bool = False
    samples: bool = False

    @property
    def reads(self) -> tuple[str, ...] | None:
        """The columns that travel; None: all."""
        return None if self.needs is None else (*self.needs, *self.optional)


def using(
    protocol: str,
    *,
    needs: Columns | None = None,
    optional: Columns = (),
    gives: Columns | None = None,
    blocking: bool = False,
    streams: bool = False,
    samples: bool = False,
) -> Callable[[Callable[Concatenate[S, P], R]], Declared[P, R]]:
    """Declare a method's protocol and columns; see `Method`.

    Columns are names, or a mapping from names to kinds: `{"rewards": "float"}`; an empty kind may be any.

    A method that `streams` is a generator of (row numbers, Batch): some of the rows that it was given, from 0, and the
    columns that it adds to them. It gives each row once, in any order.

    Raises ValueError for a kind that does not exist, and for a method that streams and does not say what it gives.
    """
    if streams and gives is None:
        raise ValueError("a method that streams must declare the columns that it gives")
    said = [columns for columns in (needs, optional, gives) if isinstance(columns, Mapping)]
    kinds = {name: kind for columns in said for name, kind in columns.items() if kind}
    wrong = sorted(set(kinds.values()) - set(KINDS))
    if wrong:
        raise ValueError(f"no kind of column is {wrong[0]!r}; there are {', '.join(KINDS)}")

    def mark(function: Callable[Concatenate[S, P], R]) -> Declared[P, R]:
        annotation = getattr(function, "__annotations__", {}).get("return")
        function._dispatch = Method(  # type: ignore[attr-defined]
            protocol,
            needs=None if needs is None else tuple(needs),
            gives=None if gives is None else tuple(gives),
            returns_rows=gives is not None or _is_rows(annotation),
            optional=tuple(optional),
            kinds=kinds,
            blocking=blocking,
            streams=streams,
            samples=samples,
        )
        return cast(Declared[P, R], function)

    return mark


def methods(cls: type) -> dict[str, Method]:
    """The declared methods of a class, its bases' included; an override inherits its base's declaration.

    One that is declared anew samples if its base's does.

    Raises KeyError, listing what there is, if one names a protocol that does not exist.
    """
    found: dict[str, Method] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if hasattr(value, "_dispatch"):
                declared, base_samples = value._dispatch, name in found and found[name].samples
                found[name] = replace(declared, samples=True) if base_samples else declared
    for name, method in found.items():
        if method.protocol not in protocols:
            known = ", ".join(protocols)
            raise KeyError(f"{cls.__name__}.{name}: no dispatch protocol is named {method.protocol!r}. Known: {known}")
    return found


def _is_rows(annotation: Any) -> bool:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.rpartition(".")[2] in ("Batch", "RowsT")
