"""Declarations of an algorithm's class that cannot be right, told where the class is written."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from types import FunctionType
from typing import Any

from hybridflow.config.schema import AlgorithmConfig

SEVERAL = ("roles", "only_for_kl", "components", "heeds", "columns", "losses")
"""Attributes that are several names."""
OF_SETTINGS = ("components", "heeds")
"""Attributes that name settings of the section `algorithm`."""
SETTINGS = frozenset(entry.name for entry in fields(AlgorithmConfig))
OF_EVERY_ALGORITHM = ("config", "context", "kl", "scores_first")
"""Attributes that an algorithm gets when it is made, beside its roles."""


def refuse_misdeclared(cls: type, base: type) -> None:
    """Raise TypeError for a text in the place of several names, and for roles that are not there or cannot be.

    Args:
        base: the class that all algorithms derive from.
    """
    for problem in _problems(cls, base):
        raise TypeError(f"{cls.__name__}.{problem}")


def _problems(cls: Any, base: type) -> Iterator[str]:
    for name in SEVERAL:
        value = vars(cls).get(name)
        if isinstance(value, str):
            yield f"{name} is the text {value!r}, and several names were expected: {name} = ({value!r},)"
    for name in OF_SETTINGS:
        for given in vars(cls).get(name) or ():
            if given not in SETTINGS:
                near = get_close_matches(given, SETTINGS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(SETTINGS))}"
                yield f"{name} names {given!r}, and no setting of `algorithm` is called so; {hint}"
    for number, role in enumerate(cls.roles):
        if role in cls.roles[:number]:
            yield f"roles names {role!r} twice; name it once"
        if role in (*OF_EVERY_ALGORITHM, *vars(base)) or _is_method(cls, role):
            yield f"roles names {role!r}, and an algorithm has something else of that name; give the role another"
    if cls.generates and cls.roles and "actor" not in cls.roles:
        named = ", ".join(cls.roles)
        yield f"generates is True, but 'actor', from which it would sample, is not among its roles ({named}); name it"


def _is_method(cls: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name, None), FunctionType | property | classmethod | staticmethod)
