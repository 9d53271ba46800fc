"""Messages for values of a wrong type, in the words of the settings: what was given, what was expected, an example."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from enum import Enum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from omegaconf import MISSING, Container, Node, OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException

from hybridflow.bounds import number
from hybridflow.config import secret_settings, sections, setting_keys
from hybridflow.errors import shown

ONE = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
SEVERAL = {bool: "true or false", str: "texts", int: "whole numbers", float: "numbers"}
ENTRY = re.compile(r"\[\d+\]")
TRIED = (1, 0.5, 0, 2)  # as an example of a number, until one is within bounds
MAX_NAMED = 6  # settings of a section


@dataclass(frozen=True)
class _Place:
    """What the schema says of a key.

    Attributes:
        hint: without `null` as one of its types.
        default: what stands there if nothing is given; None if nothing does.
        nullable: whether null may.
    """

    hint: Any
    default: Any
    nullable: bool


def described(key: str, error: OmegaConfBaseException) -> str | None:
    """Describe an error of OmegaConf's about the type of a value; None if the schema does not have the key.

    Args:
        key: an entry of a list ends in its place, as `trainer.profile_steps[0]`.
    """
    place = _place(key)
    if place is None:
        return None
    if isinstance(error, ConfigTypeError):  # a list for values by name, or the other way round; it has no value
        return _told(key, place, None, "values by name" if get_origin(place.hint) is list else "a list")
    value = _unwrapped(error.value)
    return _told(key, place, value, _given(key, value))


def in_tree(tree: object, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of nested settings whose value is a list, values by name or single where the schema has another
    of these, with what is said of it. OmegaConf does not name the key of such a one if it is in a file.

    Args:
        above: the key of the section that they are for.
    """
    place = _place(above)
    if place is None:
        return
    wants = Mapping if is_dataclass(place.hint) or get_origin(place.hint) is dict else list
    if is_dataclass(place.hint) and isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from in_tree(value, f"{above}.{name}".lstrip("."))
    elif _is_nested(place.hint) and not isinstance(tree, wants) and not _is_left(tree):
        yield above, _told(above, place, tree, _given(above, tree))


def _told(key: str, place: _Place, value: object, given: str) -> str:
    """Say what is wrong with a value, which is shown as `given`."""
    words = _in_words(place.hint)
    if place.nullable:
        words += ", or null"
    example = _example(ENTRY.sub("", key), value)
    if _is_enum(place.hint) and isinstance(value, str):
        values = setting_keys.values_of(place.hint)
        near = get_close_matches(value, values, n=1)
        hint = f"; did you mean {near[0]}?" if near else f", as {example}"
        return f"{key}: no such value: {given} given; {words} was expected{hint}"
    were = "were" if _is_plural(place.hint) else "was"
    return f"{key}: wrong type: {given} given; {words} {were} expected, as {example}"


def _place(key: str) -> _Place | None:
    """Find a key, or an entry of a list or a dictionary, in the schema; None: it has no such key."""
    hint: Any = sections.whole()
    default: Any = sections.whole()()
    nullable = False
    for part in filter(None, [*ENTRY.sub("", key).split("."), *ENTRY.findall(key)]):
        if is_dataclass(hint):
            hints = setting_keys.hints_of(hint, include_extras=True)
            if part not in hints:
                return None
            hint, nullable = _without_null(hints[part])
            default = getattr(default, part, None)
        elif get_origin(hint) in (list, dict):
            hint, nullable = _without_null(get_args(hint)[-1])
            default = None
        else:
            return None
    return _Place(hint, default, nullable)


def _is_nested(hint: Any) -> bool:
    return is_dataclass(hint) or get_origin(hint) in (list, dict)


def _is_left(value: object) -> bool:
    """Tell whether it stands for another value, or for one that must be given."""
    return isinstance(value, str) and (value == MISSING or "${" in value)


def _without_null(hint: Any) -> tuple[Any, bool]:
    """Return a type without None among its alternatives, and whether that was one."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return (kinds[0], True) if NoneType in get_args(hint) and len(kinds) == 1 else (hint, False)


def _in_words(hint: Any) -> str:
    """Say in words what a value is to be, with its bounds."""
    if get_origin(hint) is list:
        of = get_args(hint)[0]
        return f"a list of {SEVERAL.get(_plain(of), 'values')}{_bounds(of)}"
    if get_origin(hint) is dict:
        return "values by name"
    if is_dataclass(hint):
        names = list(setting_keys.hints_of(hint))
        more = ", …" if len(names) > MAX_NAMED else ""
        return f"settings by name ({', '.join(names[:MAX_NAMED])}{more})"
    if _is_enum(hint):
        return f"one of {', '.join(setting_keys.values_of(hint))}"
    return f"{ONE.get(_plain(hint), 'one value')}{_bounds(hint)}"


def _is_plural(hint: Any) -> bool:
    return get_origin(hint) is dict or is_dataclass(hint)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _plain(hint: Any) -> Any:
    """Return a type without what is annotated to it."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _bounds(hint: Any) -> str:
    declared = number(hint)
    return f" ({declared.bounds})" if declared and declared.bounds and not declared.bounds.because else ""


def _given(key: str, value: object) -> str:
    """Show a value as it was given, in YAML's words; of one that has a secret in it, say what it is."""
    if any(secret_settings.found(value, ENTRY.sub("", key))):
        return "values by name" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "a text"
    return setting_keys.YAML[value] if value is None or isinstance(value, bool) else shown(value)


def _unwrapped(value: object) -> object:
    if isinstance(value, Container):
        return OmegaConf.to_container(value)
    return value._value() if isinstance(value, Node) else value


def _example(key: str, given: object) -> str:
    """Return a setting that would be right, written as an override: of a list, what was given as its one entry."""
    place = _place(key)
    assert place is not None, key
    name, value = _right(place, given)
    return f"{key}{name}={value}"


def _right(place: _Place, given: object) -> tuple[str, str]:
    """Return the rest of a key and a value that is right for it."""
    hint = place.hint
    if get_origin(hint) is dict:
        return ".NAME", _value(get_args(hint)[1])
    if get_origin(hint) is list:
        of = get_args(hint)[0]
        entries = [given] if _fits(of, given) else place.default
        return "", f"[{','.join(map(str, entries))}]" if entries else f"[{_value(of)}]"
    if is_dataclass(hint):
        name, of = next(_settable(hint))
        below, value = _right(_Place(_without_null(of)[0], getattr(place.default, name, None), False), None)
        return f".{name}{below}", value
    if place.default not in (None, "", MISSING) and not _is_enum(hint):
        return "", setting_keys.YAML[place.default] if isinstance(place.default, bool) else str(place.default)
    return "", _value(hint)


def _settable(section: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a section that stand for themselves first, then its sections and lists."""
    yield from sorted(setting_keys.hints_of(section, include_extras=True).items(), key=lambda item: _is_nested(item[1]))


def _fits(hint: Any, value: object) -> bool:
    declared = number(hint)
    if declared:
        return not isinstance(value, bool) and declared.problem(value) is None
    return _plain(hint) is str and isinstance(value, str) and re.fullmatch(r"[\w.-]+", value) is not None


def _value(hint: Any) -> str:
    """Return a value of a type, as an example."""
    if get_origin(hint) is list:
        return f"[{_value(get_args(hint)[0])}]"
    declared = number(hint)
    if declared:
        lowest = () if declared.bounds is None or declared.bounds.at_least is None else (declared.bounds.at_least,)
        return str(next((value for value in (*TRIED, *lowest) if declared.problem(value) is None), 1))
    values = setting_keys.values_of(_plain(hint))
    return values[0] if values else "VALUE"
