"""A registered function with the options that the configuration gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from hybridflow.registry import Registry

T = TypeVar("T")


def with_options(parts: Registry[Callable[..., T]], name: str, options: Mapping[str, Any]) -> Callable[..., T]:
    """The part of that name, to be called with its inputs alone.

    Raises KeyError for an unknown name, ValueError for an unknown or a missing option.
    """
    function = parts.get(name)
    signature = inspect.signature(function)
    try:
        signature.bind(None, **options)
    except TypeError as error:
        known = list(signature.parameters.values())[1:]
        takes = ", ".join(str(option.replace(annotation=option.empty)) for option in known) or "none"
        raise ValueError(f"options of {parts.kind} {name!r}: {error}; it takes {takes}") from None
    return partial(function, **options)
