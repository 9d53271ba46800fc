"""Independence of groups: what is computed for one prompt's rows, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def independent(function: F) -> F:
    """Declare that an advantage estimator, or a reward shaping, gives a group what it would give it alone.

    It then remembers nothing from step to step either. A schedule that learns from some groups before the others have
    finished takes no other.
    """
    function._independent = True  # type: ignore[attr-defined]
    return function


def is_independent(function: Callable[..., Any]) -> bool:
    """Tell whether a function was declared to be."""
    return bool(getattr(function, "_independent", False))
