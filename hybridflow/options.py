"""The options that a registered component takes from the configuration: the arguments after the first.

What they may be is declared where the component is: a number by its `Bounds`, anything else by the type of its default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from inspect import Parameter
from types import FunctionType
from typing import Any

from hybridflow.bounds import endless, parameters

SIMPLE = (bool, int, float, str)
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def faults(component: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, str]:
    """Return by option what is wrong: the component does not take it, takes no such value, or needs it."""
    taken = taken_by(component)
    numbers = parameters(component)
    problems: dict[str, str] = {}
    for name, value in effective_options(component, options).items():
        if name in taken:
            trouble = numbers[name].problem(value) if name in numbers else _strange(value, taken[name])
            problems |= {name: trouble} if trouble else {}
        elif not takes_any(component):
            near = nearest(component, name)
            problems[name] = (
                f"no such option{f'; did you mean {near!r}?' if near else ';'} the component {takes(component)}"
            )
    absent = [name for name, option in taken.items() if option.default is Parameter.empty and name not in options]
    return problems | dict.fromkeys(absent, f"must be given; the component {takes(component)}")


def effective_options(component: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Drop options that are null and that the component does not take: so YAML drops another component's options."""
    taken = taken_by(component)
    free = takes_any(component)
    return {name: value for name, value in options.items() if value is not None or name in taken or free}


def taken_by(component: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the options of a component, by name."""
    return {option.name: option for option in _after_the_first(component) if option.kind not in VARIADIC}


def takes_any(component: Callable[..., Any]) -> bool:
    """Tell whether a component takes options of any name."""
    return any(option.kind is Parameter.VAR_KEYWORD for option in _after_the_first(component))


def takes(component: Callable[..., Any]) -> str:
    """Describe the options of a component and their defaults."""
    known = [str(option.replace(annotation=Parameter.empty)) for option in taken_by(component).values()]
    return f"takes {', '.join(known) or 'no options'}"


def nearest(component: Callable[..., Any], name: str) -> str | None:
    """Return the option whose name is most like a name, if any is."""
    return next(iter(get_close_matches(name, taken_by(component), n=1)), None)


def _after_the_first(component: Callable[..., Any]) -> Sequence[Parameter]:
    # Updates ask anew. Functions and classes stay what they are; what else can be called may not even be hashable.
    known = isinstance(component, FunctionType | type)
    return _parameters(component) if known else _parameters.__wrapped__(component)


@cache
def _parameters(component: Callable[..., Any]) -> Sequence[Parameter]:
    return tuple(inspect.signature(component).parameters.values())[1:]


def _strange(value: object, option: Parameter) -> str | None:
    """Describe what is wrong with a value that no annotation of a number tells about; None if nothing is."""
    expected = type(option.default)
    like_it = type(value) is expected or {type(value), expected} == {int, float}
    if expected not in SIMPLE or like_it:
        return endless(value)
    return f"{value!r} given, of type {type(value).__name__}; {expected.__name__} was expected"
