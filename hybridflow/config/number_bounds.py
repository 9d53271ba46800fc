"""Bounds of the numbers among the settings: held to what the schema says they may be. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from hybridflow.bounds import Number, endless, number
from hybridflow.config import pool_sizes, setting_keys
from hybridflow.config.schema import Config


def problems(config: Config) -> list[str]:
    """List every number that is out of its bounds, as `key: what was found; what was expected`.

    All sections are looked at, those of roles that the run does not use too: such a number is right in no run.
    """
    return list(_wrong("", config, Config))


def declared(kind: Any = None) -> Iterator[tuple[str, Number, Any]]:
    """Yield every number of the schema, or of a section, with its key and its default, as `setting_keys` has them."""
    for setting in setting_keys.declared(kind):
        if setting.number is not None:
            yield setting.key, setting.number, setting.default


def nested(value: Any, hint: Any = Config, key: str = "") -> Iterator[str]:
    """Yield lists and objects in a list of values, as `key: what is wrong`: OmegaConf lets them in."""
    of: Any = type(value)
    if is_dataclass(value):
        for name, kind in setting_keys.hints_of(of).items():
            yield from nested(getattr(value, name), kind, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) and get_origin(hint) is list:
        for entry in value:
            if isinstance(entry, list | dict):
                yield f"{key}: wrong type: {entry} given among its values, where one value was expected"


def _wrong(key: str, value: Any, hint: Any) -> Iterator[str]:
    of: Any = type(value)
    if key == pool_sizes.KEY:  # which may be other things than numbers
        yield from pool_sizes.problems(value)
    elif is_dataclass(value):
        for name, kind in setting_keys.hints_of(of, include_extras=True).items():
            yield from _wrong(f"{key}.{name}".lstrip("."), getattr(value, name), kind)
    elif isinstance(value, list | dict):
        kind = (get_args(hint) or (Any,))[-1]
        entries = [(f"{key}.{name}", entry) for name, entry in value.items()] if isinstance(value, dict) else []
        for where, entry in entries or [(key, entry) for entry in value]:
            yield from _wrong(where, entry, kind)
    elif trouble := (declared_number.problem(value) if (declared_number := number(hint)) else endless(value)):
        yield f"{key}: {trouble}"
