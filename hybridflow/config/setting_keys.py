"""Keys of the settings as the schema declares them: default, type, bounds, and the comment that says what each means.

A field's comment stands behind it, or on the lines above it. `hybridflow settings`, `--help` and docs/settings.md are
made of this. Pure: source files are read, nothing else.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import lru_cache
from io import StringIO
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from hybridflow.bounds import Number, number
from hybridflow.config import sections
from hybridflow.config.schema import TrainedRoleConfig

ROLE = "ROLE"
KINDS = {bool: "true or false", str: "text", int: "whole number", float: "number", Any: "anything"}
YAML = {None: "null", True: "true", False: "false"}
UNITS = {"_s": "seconds", "_gib": "GiB", "_tokens": "tokens", "_token_ids": "ids of tokens", "_rows": "rows"}


@dataclass(frozen=True)
class Setting:
    """Key of the settings.

    Attributes:
        key: roles that are alike once: `ROLE.optimizer.lr`. An entry of a list or a dictionary: `placement.pools.*`.
        hint: its annotation.
        default: `...` of an entry.
        meaning: its comment, after that of the section that it stands in; "" without one.
    """

    key: str
    hint: Any
    default: Any
    meaning: str = ""

    @property
    def number(self) -> Number | None:
        """Return what it may be, if it is a number."""
        return number(self.hint)

    @property
    def kind(self) -> str:
        """Return what it may be, in words, with its unit."""
        bounded = self.number
        unit = next((f"{unit}, " for end, unit in UNITS.items() if self.key.endswith(end)), "")
        if bounded:
            why = bounded.bounds.because if bounded.bounds else ""
            return f"{unit}{bounded}{f': {why}' if why else ''}"
        return _in_words(self.hint)

    @property
    def given(self) -> str:
        """Return its default as YAML has it; "" for one that must be given, or that has none."""
        if self.default is ... or self.default == MISSING:
            return ""
        if self.default is None or isinstance(self.default, bool):
            return YAML[self.default]
        if isinstance(self.default, str) and not isinstance(self.default, Enum):
            return self.default or '""'
        return str(self.default).replace("'", "")


def declared(kind: Any = None, above: str = "") -> Iterator[Setting]:
    """Yield every key of the schema, or of one of its sections; sections are no keys."""
    known = set()
    for setting in _declared(kind or sections.whole(), above):
        if setting.key not in known:
            yield setting
        known.add(setting.key)


def _declared(kind: Any, above: str, own: str = "", before: str = "", default: Any = None) -> Iterator[Setting]:
    """Yield the keys of a section.

    Args:
        own: before the names of those that this role alone has.
        before: what the field that holds the section says of it.
        default: the section as the one above it has it; None: as it is by itself.
    """
    default = kind() if default is None else default
    said = comments(kind)
    for name, hint in get_type_hints(kind, include_extras=True).items():
        key = (own if name in kind.__annotations__ and own else above) + name
        meaning = "; ".join(text for text in (before, said.get(name, "")) if text)
        if isinstance(hint, type) and is_dataclass(hint):
            role = issubclass(hint, TrainedRoleConfig)
            own_keys = f"{name}." if role else ""
            inner = getattr(default, name)
            yield from _declared(hint, f"{ROLE if role else above + name}.", own_keys, said.get(name, ""), inner)
            continue
        yield Setting(key, hint, getattr(default, name), meaning)
        if get_origin(hint) in (list, dict) and number(get_args(hint)[-1]):
            yield Setting(f"{key}.*", get_args(hint)[-1], ...)


def roles() -> list[str]:
    """Return the sections of roles with a model in a training engine, whose common keys are `ROLE`'s."""
    hints = get_type_hints(sections.whole())
    return [name for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, TrainedRoleConfig)]


@lru_cache
def comments(kind: type) -> dict[str, str]:
    """Return the comment of each field of a dataclass, those that it inherits too; {} where its source is not there."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            found |= _comments_of(base)
    return found


def _comments_of(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):  # a class that was made by a call
        return {}
    by_line: dict[int, str] = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            by_line[token.start[0]] = token.string.removeprefix("#").strip()
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    lines = source.splitlines()
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            behind = by_line.get(node.end_lineno or node.lineno)
            found[node.target.id] = behind or _above(lines, by_line, node.lineno)
    return found


def _above(lines: list[str], by_line: dict[int, str], line: int) -> str:
    """Return the comment that ends on the line before `line`."""
    text: list[str] = []
    while (line := line - 1) in by_line and lines[line - 1].lstrip().startswith("#"):
        text.insert(0, by_line[line])
    return " ".join(text)


def hints_of(section: Any, *, include_extras: bool = False) -> dict[str, Any]:
    """Return the types of a section's settings, by name; `include_extras`: with what is annotated to them."""
    return _hints(section, include_extras)  # apart, as what `is_dataclass` has narrowed is no key for a type checker


@lru_cache(maxsize=256)  # the settings are looked at several times, and evaluating annotations takes milliseconds
def _hints(section: Any, include_extras: bool) -> dict[str, Any]:
    return get_type_hints(section, include_extras=include_extras)


def values_of(hint: Any) -> list[str]:
    """Return the values that a type has, where they are few: of an enumeration, true and false, and null."""
    parts = [part for part in get_args(hint) if part is not NoneType]
    if NoneType in get_args(hint) and len(parts) == 1:
        values = values_of(parts[0])
        return [*values, "null"] if values else []
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [str(member.value) for member in hint]
    return ["true", "false"] if hint is bool else []


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Annotated and (said := [text for text in hint.__metadata__ if isinstance(text, str)]):
        return said[0]
    if get_origin(hint) is list:
        return f"list: {_in_words(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"by name: {_in_words(get_args(hint)[1])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(values_of(hint))
    if NoneType in get_args(hint):
        return f"{_in_words(next(part for part in get_args(hint) if part is not NoneType))}, or null"
    if bounded := number(hint):
        return str(bounded)
    return KINDS.get(hint, "anything")
