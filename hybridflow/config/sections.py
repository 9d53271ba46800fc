"""Sections of the settings that roles of the user bring: dataclasses that stand beside ours in `Config`.

`roles.register("mine", settings=MySettings)` adds one. Plugins are imported before anything is composed, so Hydra, the
checks and the help know these keys as they know ours: types, bounds, the nearest key to one that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import MISSING, FrozenInstanceError, field, fields, is_dataclass, make_dataclass
from functools import lru_cache
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf

from hybridflow.bounds import Bounds, number
from hybridflow.config.schema import SECTIONS, Config
from hybridflow.errors import NameTakenError

T = TypeVar("T")

HYDRAS = ("hydra", "defaults")
"""Top-level keys that mean something to Hydra."""

_added: dict[str, type] = {}
_shown: frozenset[str] | None = None  # those of them that the settings have; None: all


def add(name: str, settings: type) -> None:
    """Give the settings a section of that name.

    Args:
        settings: a dataclass, frozen or not. Each field has a type that OmegaConf takes (numbers, texts, booleans,
            enums, lists, dictionaries, dataclasses) and a default, which is `omegaconf.MISSING` if it must be given.

    Raises TypeError if it is none, or the name cannot be written as a key; NameTakenError if a section of ours has it.
    """
    prefix = f"role {name!r}: its settings {getattr(settings, '__qualname__', settings)!r}"
    if not (isinstance(settings, type) and is_dataclass(settings)):
        raise TypeError(f"{prefix} must be a dataclass")
    if not name.isidentifier():
        raise TypeError(
            f"{prefix} need a section of that name, which cannot be written as a key; name it like a variable"
        )
    if name in (*SECTIONS, *HYDRAS):
        whose = "Hydra" if name in HYDRAS else "hybridflow"
        raise NameTakenError(f"{prefix} need a section of that name, and {whose} has one; give the role another name")
    bare = [entry.name for entry in fields(settings) if entry.default is MISSING and entry.default_factory is MISSING]
    if bare:
        raise TypeError(f"{prefix} have no default for {', '.join(bare)}: give one, or omegaconf.MISSING")
    try:
        OmegaConf.structured(settings)
        wrong = list(_unbounded(settings))
    except Exception as error:  # OmegaConf's own, and what reading an annotation raises
        raise TypeError(f"{prefix} have a field that settings cannot hold: {_first_line(error)}") from error
    if wrong:
        raise TypeError(f"{prefix} have Bounds for {', '.join(wrong)}, which is no number: int or float was expected")
    _added[name] = settings


def _unbounded(kind: Any, above: str = "") -> Iterator[str]:
    """Yield the fields whose bounds nobody would look at."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if is_dataclass(hint):
            yield from _unbounded(hint, f"{above}{name}.")
        elif any(isinstance(extra, Bounds) for extra in getattr(hint, "__metadata__", ())) and number(hint) is None:
            yield f"{above}{name}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def added() -> tuple[str, ...]:
    """Return the names of the sections that roles of the user brought."""
    return tuple(classes())


def classes() -> dict[str, type]:
    """Return these sections' dataclasses by name."""
    return {name: settings for name, settings in _added.items() if _shown is None or name in _shown}


@contextmanager
def only(names: Iterable[str]) -> Iterator[None]:
    """Leave out, meanwhile, the sections of other names, and so those that are added meanwhile."""
    global _shown
    before = _shown
    _shown = frozenset(names)
    try:
        yield
    finally:
        _shown = before


def whole() -> type[Config]:
    """Return the class of all settings: `Config`, with a field for each section that was added."""
    return _whole(tuple(classes().items()))


@lru_cache
def _whole(sections: tuple[tuple[str, type], ...]) -> type[Config]:
    if not sections:
        return Config
    own = [(name, settings, field(default_factory=settings)) for name, settings in sections]
    return cast(type[Config], make_dataclass("Config", own, bases=(Config,)))


def schema() -> DictConfig:
    """Return all settings as Hydra composes over them; whoever changes them copies them first."""
    return _schema(tuple(classes().items()))


@lru_cache(maxsize=8)  # stages of one command may have different plugins
def _schema(sections: tuple[tuple[str, type], ...]) -> DictConfig:
    tree = OmegaConf.structured(_whole(sections))
    for name, _ in sections:
        _thaw(tree[name])
    return cast(DictConfig, tree)


def _thaw(node: DictConfig) -> None:
    """Let files and the command line set what is in a frozen dataclass: OmegaConf takes it to be read-only."""
    OmegaConf.set_readonly(node, None)
    for name in node:
        if OmegaConf.is_dict(node) and not OmegaConf.is_missing(node, name) and isinstance(node[name], DictConfig):
            _thaw(node[name])


def frozen(settings: T) -> T:
    """Copy a dataclass, and the dataclasses in it, so that no field can be set."""
    if not is_dataclass(settings) or isinstance(settings, type):
        return deepcopy(settings)
    kind = type(settings)
    sealed = type(
        kind.__name__, (kind,), {"__setattr__": _refuse, "__delattr__": _refuse, "__module__": kind.__module__}
    )
    copy: Any = object.__new__(sealed)
    others = getattr(settings, "__dict__", {})  # what `__post_init__` made; a class with slots has none
    for name in dict.fromkeys((*(entry.name for entry in fields(settings)), *others)):
        object.__setattr__(copy, name, frozen(getattr(settings, name)))
    return cast(T, copy)


def _refuse(settings: Any, name: str, value: Any = None) -> NoReturn:
    raise FrozenInstanceError(f"{type(settings).__name__}.{name} is a setting: a worker cannot change it")
