"""Secrets among settings: which names and addresses hold one. Pure; what shows a setting asks here first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

NAMED = re.compile(
    r"(^|_)(api_?key|password|passwd|secret|secret_key|access_key|credentials?|(access|auth|bearer|api|hf)_token)$",
    re.IGNORECASE,
)
IN_ADDRESSES = re.compile(rf"{NAMED.pattern}|^(token|sig|signature)$", re.IGNORECASE)


def found(value: Any, key: str) -> Iterator[tuple[str, bool]]:
    """Yield the keys, of a setting and below it, whose values are secrets; and whether it is in an address."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from found(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from found(inner, key)
    elif isinstance(value, str) and value:
        if NAMED.search(key.rpartition(".")[2]):
            yield key, False
        elif "://" in value and _lets_in(value):
            yield key, True


def without_secret(argument: str) -> str:
    """Return KEY=VALUE as it was written, or its key alone if the value is a secret."""
    key, _, value = argument.partition("=")
    return key if any(found(value, key.lstrip("+~-"))) else argument


def _lets_in(address: str) -> bool:
    """Tell whether an address has a password, a user of HTTP, who is a token then, or a parameter that is a secret."""
    try:
        parts = urlsplit(address)
        by_name = parts.username and parts.scheme in ("http", "https")
        named = [name for name, value in parse_qsl(parts.query) if value]
    except ValueError:
        return False
    return bool(parts.password or by_name) or any(IN_ADDRESSES.search(name) for name in named)
