"""JSON that every reader takes (RFC 8259), whatever was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any


def as_json(value: object, **options: Any) -> str:
    """Write a value as JSON, which has no NaN and no infinity: they become null. What it cannot express becomes its
    text.

    Args:
        options: of `json.dumps`.
    """
    return json.dumps(_plain(value), allow_nan=False, **options)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if hasattr(value, "tolist"):  # of numpy and torch, from a scalar to any array
        builtin = value.tolist()
        return _plain(builtin) if not isinstance(builtin, type(value)) else str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        real = float(value)
        return real if math.isfinite(real) else None
    return str(value)
