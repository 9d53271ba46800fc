"""Declarations of a role's methods: the protocol of each, and the columns that it reads and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from hybridflow.batch.columns import KINDS
from hybridflow.dispatch.annotations import returns_rows
from hybridflow.dispatch.interface import Declared
from hybridflow.dispatch.protocol import protocols

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Columns = Iterable[str] | Mapping[str, str]
"""Names of columns, or a mapping from names to kinds: `{"rewards": "float"}`; an empty kind may be any."""


class Reads(NamedTuple):
    """Columns that a call reads: it needs some, and reads others too where rows have them."""

    needs: Columns
    optional: Columns = ()


@dataclass(frozen=True)
class Method:
    """Declaration of a role's method.

    Attributes:
        protocol: the name of its protocol.
        needs: the columns that it reads; only these travel. None: all columns.
        optional: columns that it reads too where they are there.
        gives: the columns that it adds, one row for each row it was given. None: not said; if it is annotated to
            return a Batch, they become known when the ranks have made them.
        kinds: the kinds of some of these columns (`ragged int`); a rank checks them.
        returns_rows: it returns a Batch: it says what it `gives`, or its annotation says so.
        blocking: a call waits for its ranks.
        streams: it gives its rows a few at a time, as they finish.
        samples: it draws random numbers: its rows have the column `stream_id`, a number that no other row has.
        reads_of: says what a call reads, from its arguments; until it is asked (`of_call`), needs is None.
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
    reads_of: Callable[..., Reads] | None = None

    def of_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Method:
        """Return what is declared for a call with these arguments, which may say what it reads."""
        if self.reads_of is None:
            return self
        needs, optional = self.reads_of(*args, **kwargs)
        kinds = {**self.kinds, **declared_kinds(needs, optional)}
        return replace(self, needs=tuple(needs), optional=tuple(optional), kinds=kinds, reads_of=None)

    @property
    def reads(self) -> tuple[str, ...] | None:
        """Columns that travel; None: all."""
        return None if self.needs is None else (*self.needs, *self.optional)


def using(
    protocol: str,
    *,
    needs: Columns | Callable[..., Reads] | None = None,
    optional: Columns = (),
    gives: Columns | None = None,
    blocking: bool = False,
    streams: bool = False,
    samples: bool = False,
    may: None = None,
) -> Callable[[Callable[Concatenate[S, P], R]], Declared[P, R]]:
    """Declare a method's protocol and columns; see `Method`.

    Where the arguments of a call say which columns it reads, as the name of a loss does, `needs` is a function of them
    (as the method has them, but for self) that gives `Reads`. It is asked on the controller and on the ranks.

    A method that `streams` is a generator of (row numbers, Batch): some of the rows that it was given, from 0, and the
    columns that it adds to them. It gives each row once, in any order.

    Raises ValueError for a kind that does not exist, and for a method that streams and does not say what it gives;
    TypeError for a text in the place of several names, and for `may`, the former name of `optional`.
    """
    if may is not None:
        raise TypeError("dispatch.using: `may` is called `optional` now; write optional=[...]")
    if streams and gives is None:
        raise ValueError("a method that streams must declare the columns that it gives")
    reads_of = needs if callable(needs) else None
    columns = None if callable(needs) or needs is None else needs
    kinds = declared_kinds(columns or (), optional, gives or ())

    def mark(function: Callable[Concatenate[S, P], R]) -> Declared[P, R]:
        function._dispatch = Method(  # type: ignore[attr-defined]
            protocol,
            needs=None if columns is None else tuple(columns),
            gives=None if gives is None else tuple(gives),
            returns_rows=gives is not None,
            optional=tuple(optional),
            kinds=kinds,
            blocking=blocking,
            streams=streams,
            samples=samples,
            reads_of=reads_of,
        )
        return cast(Declared[P, R], function)

    return mark


def declarations(cls: type) -> dict[str, Method]:
    """Return the declared methods of a class, its bases' included; an override inherits its base's declaration.

    A method that is declared anew samples if its base's does. Whether their protocols exist is not looked at.
    """
    by_name: dict[str, Method] = {}
    for base in reversed(cls.__mro__):
        for name, function in vars(base).items():
            declared = getattr(function, "_dispatch", None)
            if not isinstance(declared, Method):
                continue
            if declared.gives is None:
                declared = replace(declared, returns_rows=returns_rows(function, base))
            if name in by_name and by_name[name].samples:
                declared = replace(declared, samples=True)
            by_name[name] = declared
    return by_name


def with_columns(
    declared: Mapping[str, Method],
    more: Mapping[str, Mapping[str, str]],
    more_read: Mapping[str, Columns] | None = None,
) -> dict[str, Method]:
    """Return methods of which some give, or read where there are any, more columns than they declare.

    Args:
        more: by method, names with their kinds of what it gives.
        more_read: by method, names of what it reads.
    """
    changed = dict(declared)
    for name, read in (more_read or {}).items():
        method = changed[name]
        kinds = {**method.kinds, **declared_kinds(read)}
        changed[name] = replace(method, optional=(*method.optional, *read), kinds=kinds)
    for name, given in more.items():
        method = changed[name]
        gives = (*(method.gives or ()), *given)
        changed[name] = replace(method, gives=gives, kinds={**method.kinds, **given}, returns_rows=True)
    return changed


def methods(cls: type) -> dict[str, Method]:
    """Return `declarations` whose protocols exist. Raises KeyError, listing what there is, if one does not."""
    for problem in unknown_protocols(cls):
        raise KeyError(problem)
    return declarations(cls)


def unknown_protocols(cls: type) -> Iterator[str]:
    """Yield the methods of a role whose protocol nobody registers, each with the nearest name and all names."""
    for name, method in declarations(cls).items():
        if method.protocol not in protocols:
            yield f"{cls.__name__}.{name}: {protocols.unknown(method.protocol)}"


def declared_kinds(*declared: Columns) -> dict[str, str]:
    """Collect the kinds of columns that are declared with one.

    Raises ValueError for a kind that does not exist, TypeError for a text in the place of several names.
    """
    for columns in declared:
        if isinstance(columns, str):
            raise TypeError(f"{columns!r} was declared as columns; several names are expected, as [{columns!r}]")
    named = [columns for columns in declared if isinstance(columns, Mapping)]
    kinds = {name: kind for columns in named for name, kind in columns.items() if kind}
    wrong = sorted(set(kinds.values()) - set(KINDS))
    if wrong:
        raise ValueError(f"no kind of column is {wrong[0]!r}; there are {', '.join(KINDS)}")
    return kinds
