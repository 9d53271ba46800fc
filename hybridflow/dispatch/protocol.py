"""A protocol: two pure functions over a layout.

`distribute` turns one call on a role into one call a rank; `collect` turns what the ranks gave into one result.
Neither sees Ray, a tensor or a clock: rows are `BatchRef`s.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hybridflow.batch import BatchRef
from hybridflow.parallel.layout import Layout
from hybridflow.registry import Registry


class Call(NamedTuple):
    """Arguments of one call. A `BatchRef` among them is rows; everything else is passed as it is."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}

    def map(self, change: Callable[[Any], Any]) -> Call:
        """Return the same call with every argument changed."""
        args, kwargs = self
        changed = {name: change(value) for name, value in kwargs.items()} if kwargs else kwargs
        return Call(tuple(map(change, args)), changed)

    @property
    def refs(self) -> list[BatchRef]:
        """Return the arguments that are rows, in order."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, BatchRef)]

    def rows(self) -> BatchRef | None:
        """Return the first argument that is rows, or None."""
        for values in (self.args, self.kwargs.values()):
            for value in values:
                if isinstance(value, BatchRef):
                    return value
        return None


class Protocol:
    """Base of all protocols.

    Both methods are pure. `distribute` gives, by rank, one `Call` for every rank of the layout, or None for a rank
    that is not called. `collect` is given one output for every rank, by rank (None from one that was not called). It
    is also used for what else a rank reports (metrics), so it must treat outputs as values to choose from and to join
    with `concat`.
    """

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        """Return one call a rank; None for a rank that is not called."""
        raise NotImplementedError

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        """Return one result of the ranks' outputs."""
        raise NotImplementedError


protocols: Registry[type[Protocol]] = Registry("dispatch protocol", "hybridflow.dispatch.builtin_protocols")


def register(name: str) -> Callable[[type[Protocol]], type[Protocol]]:
    """Give a protocol its name. Raises TypeError at once if its two methods do not have the protocol's parameters."""

    def add(cls: type[Protocol]) -> type[Protocol]:
        if not (inspect.isclass(cls) and issubclass(cls, Protocol)):
            raise TypeError(
                f"protocol {name!r}: {getattr(cls, '__qualname__', cls)} must be a class derived from Protocol; a "
                f"method of a role takes a protocol up with @dispatch.using({name!r}, ...)"
            )
        for method, wanted in (("distribute", ["self", "layout", "call"]), ("collect", ["self", "layout", "outputs"])):
            parameters = list(inspect.signature(getattr(cls, method)).parameters)
            if getattr(cls, method) is getattr(Protocol, method) or parameters != wanted:
                raise TypeError(f"protocol {name!r}: {cls.__name__} must define {method}({', '.join(wanted)})")
        return protocols.register(name)(cls)

    return add
