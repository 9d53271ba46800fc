"""Dotted keys of the schema, and the nearest one to a key that it does not know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, get_origin, get_type_hints

from hybridflow.config import sections
from hybridflow.former_names import SETTINGS


def unknown(key: str, groups: Iterable[str] = ()) -> str | None:
    """Explain what is wrong with a dotted key; None if the schema has it (keys below a dictionary are free).

    Args:
        key: for example `actor.parallel.tensor`.
        groups: names of configuration groups, which a misspelled first part may also have meant.
    """
    kind: Any = sections.whole()
    parts = key.split(".")
    for at, part in enumerate(parts):
        if not is_dataclass(kind):
            above = ".".join(parts[:at])
            return None if get_origin(kind) is dict else f"{key}: no such key; {above} is a single value"
        hints = get_type_hints(kind)
        if part not in hints:
            near = _nearest(parts, at, sorted({*hints, *(groups if at == 0 else ())}))
            return f"{'.'.join(parts[: at + 1])}: no such key{near}"
        kind = hints[part]
    return None


def is_free(key: str) -> bool:
    """Tell whether the key is a mapping whose keys the schema leaves open, such as options, or stands below one."""
    kind: Any = sections.whole()
    for part in key.split("."):
        if not is_dataclass(kind):
            break
        kind = get_type_hints(kind).get(part)
    return get_origin(kind) is dict


def kind_of(key: str) -> Any:
    """Return the type that the schema gives a key; None if it does not have it."""
    kind: Any = sections.whole()
    for part in key.split("."):
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    return kind


def meant(key: str) -> str:
    """Return the key that a name most likely stands for: itself, or the first that ends so."""
    return key if unknown(key) is None else next(iter(_ending_in(key)), key)


def all_keys(kind: Any = None, above: str = "") -> Iterator[str]:
    """Yield every dotted key of the schema, sections too."""
    for name, child in get_type_hints(kind or sections.whole()).items():
        yield above + name
        if is_dataclass(child):
            yield from all_keys(child, f"{above}{name}.")


def _ending_in(name: str) -> list[str]:
    return [key for key in all_keys() if key.rpartition(".")[2] == name]


def _nearest(parts: list[str], at: int, siblings: list[str]) -> str:
    """Suggest a sibling of the misspelled part, else the same last part elsewhere, else all siblings."""
    above = "".join(f"{part}." for part in parts[:at])
    former = SETTINGS.get(".".join(parts))
    if former is not None:
        return f"; it is called {former} now"
    close = get_close_matches(parts[at], siblings, n=1)
    if close:
        return f"; did you mean {above}{close[0]}?"
    same_end = _ending_in(parts[-1])
    same_end.sort(key=lambda key: not key.startswith(above))
    if same_end:
        return f"; did you mean {same_end[0]}?"
    return f". {above.rstrip('.') or 'The top level'} has: {', '.join(siblings)}"
