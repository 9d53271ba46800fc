"""Bounds of the numbers among the settings: one reading of the schema for the check, the help and the docs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from hybridflow.bounds import Number, endless, number
from hybridflow.config import sections
from hybridflow.config.schema import Config, TrainedRoleConfig

ROLE = "ROLE"


def problems(config: Config) -> list[str]:
    """List every number that is out of its bounds, as `key: what was found; what was expected`.

    All sections are looked at, those of roles that the run does not use too: such a number is right in no run.
    """
    return list(_wrong("", config, Config))


def declared(kind: Any = None, above: str = "") -> Iterator[tuple[str, Number, Any]]:
    """Yield every number of the schema with its default, roles that are alike once: `ROLE.optimizer.lr`.

    An entry of a list or a dictionary is written `placement.pools.*`, without a default.
    """
    known = set()
    for key, bounded, default in _declared(kind or sections.whole(), above):
        if key not in known:
            yield key, bounded, default
        known.add(key)


def in_words() -> str:
    """List all numbers as lines of text, for the help."""
    rows = [(key, str(bounded)) for key, bounded, _ in declared()]
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"  {key:<{width}}  {text}" for key, text in rows)


def table() -> str:
    """List all numbers as a table of Markdown, for docs/configure.md."""
    rows = ["| key | default | what it may be |", "|---|---|---|"]
    for key, bounded, default in declared():
        why = bounded.bounds.because if bounded.bounds else ""
        text = "null" if default is None else "" if default is ... else str(default)
        rows.append(f"| `{key}` | {text} | {bounded}{f': {why}' if why else ''} |")
    return "\n".join(rows)


def _declared(kind: Any, above: str, own: str = "") -> Iterator[tuple[str, Number, Any]]:
    """Yield the numbers of a section. `own`: before the names of numbers that this role alone has."""
    default = kind()
    for name, hint in get_type_hints(kind, include_extras=True).items():
        key = (own if name in kind.__annotations__ and own else above) + name
        if isinstance(hint, type) and is_dataclass(hint):
            role = issubclass(hint, TrainedRoleConfig)
            yield from _declared(hint, f"{ROLE if role else above + name}.", f"{name}." if role else "")
        elif get_origin(hint) in (list, dict):
            if declared_number := number(get_args(hint)[-1]):
                yield f"{key}.*", declared_number, ...
        elif declared_number := number(hint):
            yield key, declared_number, getattr(default, name)


def nested(value: Any, hint: Any = Config, key: str = "") -> Iterator[str]:
    """Yield lists and objects in a list of values, as `key: what is wrong`: OmegaConf lets them in."""
    if is_dataclass(value):
        for name, kind in get_type_hints(type(value)).items():
            yield from nested(getattr(value, name), kind, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) and get_origin(hint) is list:
        for entry in value:
            if isinstance(entry, list | dict):
                yield f"{key}: wrong type: {entry} given among its values, where one value was expected"


def _wrong(key: str, value: Any, hint: Any) -> Iterator[str]:
    if is_dataclass(value):
        for name, kind in get_type_hints(type(value), include_extras=True).items():
            yield from _wrong(f"{key}.{name}".lstrip("."), getattr(value, name), kind)
    elif isinstance(value, list | dict):
        kind = (get_args(hint) or (Any,))[-1]
        entries = [(f"{key}.{name}", entry) for name, entry in value.items()] if isinstance(value, dict) else []
        for where, entry in entries or [(key, entry) for entry in value]:
            yield from _wrong(where, entry, kind)
    elif trouble := (declared_number.problem(value) if (declared_number := number(hint)) else endless(value)):
        yield f"{key}: {trouble}"
