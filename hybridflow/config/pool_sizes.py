"""Sizes of pools, as `placement.pools` has them: slots, so many slots on each of so many nodes, or `auto`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hybridflow.bounds import Slots, number
from hybridflow.errors import shown

AUTO = "auto"
KEY = "placement.pools"
BY_NODES = ("nodes", "slots")
FORMS = "a number of slots, {nodes: N, slots: M} or auto"
COUNTS = number(Slots)


@dataclass(frozen=True)
class PoolSize:
    """Size of a pool.

    Attributes:
        slots: in all; None: what the cluster has and no other pool takes.
        nodes: that the slots are on, as many on each; None: wherever there is room for them.
    """

    slots: int | None
    nodes: int | None = None


def size_of(value: Any) -> PoolSize:
    """Return the size of a pool in which `problems` finds nothing."""
    if value == AUTO:
        return PoolSize(None)
    if isinstance(value, Mapping):
        return PoolSize(value["nodes"] * value["slots"], value["nodes"])
    return PoolSize(int(value))


def problems(pools: Mapping[str, Any]) -> Iterator[str]:
    """Yield everything that is wrong with the sizes of pools, as `key: what was found; what was expected`."""
    for name, value in pools.items():
        yield from _problems(f"{KEY}.{name}", value)
    others = [name for name, value in pools.items() if value == AUTO]
    if len(others) > 1:
        yield (
            f"{KEY}.{others[1]}: auto given, as for {others[0]}; one pool can have what all others leave: give the "
            "rest of them slots"
        )


def whole(value: Any) -> Any:
    """Return a size with whole numbers where texts of digits stand, as variables of the environment give them."""
    if isinstance(value, Mapping):
        return {key: whole(entry) for key, entry in value.items()}
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


def _problems(key: str, value: Any) -> Iterator[str]:
    assert COUNTS is not None
    if isinstance(value, Mapping):
        yield from _by_nodes(key, value)
    elif type(value) is int:
        yield from (f"{key}: {problem}" for problem in [COUNTS.problem(value)] if problem)
    elif value != AUTO:
        yield f"{key}: {shown(value)} given; {FORMS} was expected"


def _by_nodes(key: str, value: Mapping[Any, Any]) -> Iterator[str]:
    assert COUNTS is not None
    if strange := [str(name) for name in value if name not in BY_NODES]:
        near = get_close_matches(strange[0], BY_NODES, n=1)
        hint = f"; did you mean {key}.{near[0]}?" if near else f". {key} has: nodes, slots"
        yield f"{key}.{strange[0]}: no such key{hint}"
        return
    if missing := [name for name in BY_NODES if name not in value]:
        yield f"{key}: {missing[0]} is missing; write {{nodes: N, slots: M}}, with M slots on each of N nodes"
        return
    wrong = [f"{key}.{name}: {problem}" for name in BY_NODES if (problem := COUNTS.problem(value[name]))]
    yield from wrong
    if not wrong and (problem := COUNTS.problem(value["nodes"] * value["slots"])):
        yield f"{key}: in all {problem}"
