"""Limit on resolving `${...}`: each is resolved anew wherever it is met, so a few lines can take for ever."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hybridflow.errors import ConfigError

MAX_LOOK_UPS = 10_000  # values looked up for one setting
_SIMPLE = re.compile(r"\$\{(\.*)([^${}:]+)\}")


def refuse_endless(tree: Mapping[str, Any]) -> None:
    """Raise ConfigError naming a setting whose value stands for more than `MAX_LOOK_UPS` others.

    Args:
        tree: the settings as plain containers, not resolved. What leads round in a circle, OmegaConf finds.
    """
    counted = _Counted(tree)
    for key in tree:
        counted.count((key,))


class _Counted:
    """Count of the look-ups behind each value, by its path; each counted once."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.counts = dict[tuple[str, ...], int]()

    def count(self, path: tuple[str, ...]) -> int:
        """Count the look-ups to resolve the value at this path with all below it; 0 if there is none."""
        if path in self.counts:
            return self.counts[path]
        self.counts[path] = 0  # met again while it is counted: a circle
        value: Any = self.tree
        for part in path:
            if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, Mapping) and part in value:
                value = value[part]
            else:
                return 0
        below = value if isinstance(value, Mapping) else range(len(value)) if isinstance(value, list) else ()
        total = 1 + sum(self.count((*path, str(name))) for name in below)
        for dots, key in _SIMPLE.findall(value) if isinstance(value, str) else ():
            above = path[: len(path) - len(dots)] if dots else ()
            total += self.count((*above, *re.split(r"[.\[\]]+", key.strip("]"))))
        if isinstance(value, str) and total > MAX_LOOK_UPS:
            raise ConfigError(f"{'.'.join(path)}: its ${{...}} stand for more than {MAX_LOOK_UPS} values")
        self.counts[path] = total
        return total
