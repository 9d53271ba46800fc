"""The two sides of a method: on a rank it takes and gives a `Batch`, on a group a `BatchRef` or a `Result`.

A class written over `RowsT` has both for a type checker: a worker derives from `ActorRole[Batch]`, an algorithm calls
an `ActorRole[BatchRef]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import numpy as np

from hybridflow.batch import Batch, BatchRef

RowsT = TypeVar("RowsT", Batch, BatchRef)
P = ParamSpec("P")
R = TypeVar("R")
Streamed = Iterator[tuple[np.ndarray, RowsT]]
"""Rows as they finish: their numbers among the rows of the call, and what is new of them."""


class Interface(Generic[RowsT]):
    """Base of classes whose methods are dispatched."""


class Result:
    """Value of a call that gives no rows; the call may still be under way."""

    def get(self) -> Any:
        """Wait for the ranks and return what the protocol collects of their values. Raises RoleError if it failed."""
        raise NotImplementedError

    def metadata(self) -> list[Any]:
        """Wait for the ranks and return the report of each that was called: its seconds and metrics, not its value."""
        raise NotImplementedError


class Declared(Protocol[P, R]):
    """Type of a method with a declaration. It is the function itself; this says what calling it gives where."""

    @overload
    def __get__(self: Declared[P, BatchRef], instance: Interface[BatchRef], owner: type) -> Callable[P, BatchRef]: ...
    @overload
    def __get__(
        self: Declared[P, Streamed[BatchRef]], instance: Interface[BatchRef], owner: type
    ) -> Callable[P, Streamed[BatchRef]]: ...
    @overload
    def __get__(self, instance: Interface[BatchRef], owner: type) -> Callable[P, Result]: ...
    @overload
    def __get__(self, instance: Interface[Batch], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> Declared[P, R]: ...
