"""Bounds of numbers, declared in annotations beside defaults: of settings, of options of parts and of tasks.

    lr: Annotated[float, Bounds(at_least=0)] = 1e-4

The checks before a run, the help and the table in docs/configure.md all read this. A number that is not finite (nan,
inf) is never right, wherever it stands.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

LONGEST = 2**63  # engines hold whole numbers in 64 bits, with a sign
LARGEST = 3.4028235e38  # and others in float32, which has inf for what is larger


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number; without a limit it may be any, `because` of what.

    Attributes:
        also: single values outside of the limits that are right too, by what they mean: `{-1: "all tokens"}`.
        because: why any number will do.

    Raises ValueError if there is neither a limit nor a reason.
    """

    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None
    also: Mapping[float, str] | None = None
    because: str = ""

    def __post_init__(self) -> None:
        limits = (self.at_least, self.more_than, self.at_most, self.less_than)
        if limits == (None,) * 4 and not self.because:
            raise ValueError("bounds: give a limit, or say because of what any number will do")

    def allow(self, value: float) -> bool:
        """Tell whether the number is within bounds."""
        return value in (self.also or ()) or (
            (self.at_least is None or value >= self.at_least)
            and (self.more_than is None or value > self.more_than)
            and (self.at_most is None or value <= self.at_most)
            and (self.less_than is None or value < self.less_than)
        )

    def __str__(self) -> str:
        lower = ("at least", self.at_least), ("more than", self.more_than)
        upper = ("at most", self.at_most), ("less than", self.less_than)
        limits = " and ".join(f"{words} {limit}" for words, limit in (*lower, *upper) if limit is not None)
        others = "".join(f", or {value} for {meaning}" for value, meaning in (self.also or {}).items())
        return f"{limits or 'any number'}{others}"


Count = Annotated[int, Bounds(at_least=1)]
Rows = Annotated[int, Bounds(at_least=1, at_most=2**20)]  # a million: each takes memory, and time, in a step
Slots = Annotated[int, Bounds(at_least=1, at_most=2**16)]  # each is a process
NotNegative = Annotated[float, Bounds(at_least=0)]
NotNegativeInt = Annotated[int, Bounds(at_least=0)]
Positive = Annotated[float, Bounds(more_than=0)]
Seconds = Annotated[float, Bounds(at_least=1, at_most=31_536_000)]  # a year: no timer of an engine holds any number
Level = Annotated[float, Bounds(at_least=0, at_most=1)]
Share = Annotated[float, Bounds(more_than=0, at_most=1)]


@dataclass(frozen=True)
class Number:
    """Number as an annotation declares it.

    Attributes:
        kind: int or float.
        bounds: None if none are declared.
        optional: None may stand in its place.
    """

    kind: type
    bounds: Bounds | None = None
    optional: bool = False

    def problem(self, value: object) -> str | None:
        """Describe what is wrong with a value, and what was expected; None if nothing is."""
        if value is None and self.optional:
            return None
        if type(value) is not int and (self.kind is int or type(value) is not float):
            return f"{value!r} given, a {'whole number' if self.kind is int else 'number'} was expected"
        if trouble := endless(value):
            return trouble
        assert isinstance(value, int | float)
        return None if self.bounds is None or self.bounds.allow(value) else f"{value} given, {self} expected"

    def __str__(self) -> str:
        text = str(self.bounds) if self.bounds else "any number"
        return f"{text}, or null" if self.optional else text


def endless(value: object) -> str | None:
    """Describe what is wrong with a number that has no bounds: not finite, or too large for an engine; None if nothing
    is.
    """
    if isinstance(value, int) and abs(value) >= LONGEST:
        return "a whole number of more than 64 bits given"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} given, a finite number was expected"
    if isinstance(value, float) and abs(value) > LARGEST:
        return f"{value} given, which float32 cannot hold"
    return None


def number(annotation: Any) -> Number | None:
    """Read the number that an annotation declares (with its extras, see `get_type_hints`); None if it is something
    else.
    """
    if get_origin(annotation) is Annotated:
        inner = number(annotation.__origin__)
        bounds = [extra for extra in annotation.__metadata__ if isinstance(extra, Bounds)]
        return Number(inner.kind, bounds[-1], inner.optional) if inner and bounds else inner
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        inner = number(kinds[0]) if len(kinds) == 1 else None
        return Number(inner.kind, inner.bounds, optional=True) if inner else None
    return Number(annotation) if annotation in (int, float) else None


def parameters(function: Callable[..., Any]) -> dict[str, Number]:
    """Return the numbers among the parameters of a function, a class's constructor or an object's call, by name."""
    return {**_numbers(_called(function))}


@cache  # an update asks anew, and annotations stay what they are
def _numbers(code: Any) -> dict[str, Number]:
    numbers = {}
    for name, annotation in getattr(code, "__annotations__", {}).items():
        # One at a time: an annotation may be for type checkers only, and then it may raise anything here.
        alone = SimpleNamespace(__annotations__={name: annotation})
        try:
            hint = get_type_hints(alone, getattr(code, "__globals__", None), include_extras=True)[name]
        except Exception:
            continue
        if declared := number(hint):
            numbers[name] = declared
    return numbers


def _called(function: Callable[..., Any]) -> Any:
    """Return the function that has the annotations of a call."""
    if inspect.isclass(function):
        return function.__init__
    if isinstance(function, partial):
        return _called(function.func)
    unwrapped = inspect.unwrap(function)
    return unwrapped if inspect.isroutine(unwrapped) else type(unwrapped).__call__
