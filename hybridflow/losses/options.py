"""A registered function with the options that the configuration gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from hybridflow.options import effective_options, faults
from hybridflow.registry import Registry

T = TypeVar("T")


def with_options(
    components: Registry[Callable[..., T]] | Registry[type[T]], name: str, options: Mapping[str, Any]
) -> Callable[..., T]:
    """Return a registered function or class, to be called with its inputs alone.

    Raises KeyError for an unknown name, ValueError for an option that is unknown, missing or out of its bounds.
    """
    function = components.get(name)
    wrong = [f"{option}: {trouble}" for option, trouble in faults(function, options).items()]
    if wrong:
        raise ValueError(f"options of {components.kind} {name!r}: {'; '.join(wrong)}")
    return partial(function, **effective_options(function, options))
