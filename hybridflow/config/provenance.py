"""Provenance of a setting: the file and line of the YAML that set it last, or the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override

from hybridflow.config import secret_settings


@dataclass(frozen=True)
class Layer:
    """YAML file of the composition, and the section that its keys are in ("" for the top level)."""

    file: Path
    package: str


@dataclass(frozen=True)
class Origins:
    """Origins of a composition, in order: later wins, and overrides win over files."""

    layers: Sequence[Layer] = ()
    overrides: Sequence[Override] = ()
    shared: frozenset[str] = frozenset()  # those of the overrides, as they were written, that serve other commands too

    def find(self, key: str) -> str | None:
        """Return `key=value on the command line` or `file:line`; None if only the schema sets the key or section.

        A value that is a secret, or has one in it, is left out.
        """
        if override := self.override(key):
            is_secret = any(secret_settings.found(override.value(), override.key_or_group))
            return f"{override.key_or_group if is_secret else override.input_line} on the command line"
        layer = self.layer(key)
        return f"{_short(layer.file)}:{line_of(layer.file, _below(key, layer.package))}" if layer else None

    def override(self, key: str) -> Override | None:
        """Return the last override of a key, of one below it, or of one above it that gives it a value."""
        return next((override for override in reversed(self.overrides) if _sets(override, key)), None)

    def layer(self, key: str) -> Layer | None:
        """Return the last file that sets a key."""
        layers = (layer for layer in reversed(self.layers) if line_of(layer.file, _below(key, layer.package)))
        return next(layers, None)

    def annotate(self, problem: str) -> str:
        """Append to a problem, which begins with `key: `, the place where that key was set."""
        place = self.find(problem.partition(":")[0].partition("[")[0])  # an entry of a list is set with the list
        return f"{problem} ({place})" if place else problem


def line_of(file: Path, parts: Iterable[str] | None) -> int | None:
    """Return the line (from 1) of the key at a path in a YAML file; None if it is not there."""
    if parts is None:
        return None
    node = _parsed(file.read_text("utf-8"))
    line = None
    for part in parts:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        match = next(((name, value) for name, value in pairs if name.value == part), None)
        if match is None:
            return None
        line = match[0].start_mark.line + 1
        node = match[1]
    return line


@lru_cache(maxsize=256)  # each key is looked for in all files
def _parsed(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _sets(override: Override, key: str) -> bool:
    own = override.key_or_group
    return f"{own}.".startswith(f"{key}.") or (key.startswith(f"{own}.") and isinstance(override.value(), dict))


def _below(key: str, package: str) -> list[str] | None:
    """Return the parts of a key inside a package; None if it is elsewhere."""
    if not package:
        return key.split(".")
    return key[len(package) + 1 :].split(".") if key.startswith(package + ".") else None


def _short(file: Path) -> str:
    """Return the shorter of the file's relative and absolute names."""
    return min(os.path.relpath(file), str(file), key=len)
