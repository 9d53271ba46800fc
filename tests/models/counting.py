"""A safetensors reader that counts what it hands out."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class Counting:
    """Stands for `safe_open`, lets only slices be read, and counts their bytes."""

    def __init__(self, safe_open: Any) -> None:
        self._safe_open, self._bytes = safe_open, 0

    def taken(self) -> int:
        """The bytes since the last call."""
        taken, self._bytes = self._bytes, 0
        return taken

    def __call__(self, *args: Any, **kwargs: Any) -> _Reader:
        return _Reader(self._safe_open(*args, **kwargs), self)

    def add(self, found: Any) -> Any:
        self._bytes += found.nbytes
        return found


class _Reader:
    def __init__(self, inner: Any, counting: Counting) -> None:
        self._inner, self._counting = inner, counting

    def __enter__(self) -> _Reader:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._inner.__exit__(*error)

    def keys(self) -> Any:
        return self._inner.keys()

    def get_slice(self, name: str) -> _Source:
        return _Source(self._inner.get_slice(name), self._counting)


class _Source:
    def __init__(self, inner: Any, counting: Counting) -> None:
        self._inner, self._counting = inner, counting

    def get_shape(self) -> Any:
        return self._inner.get_shape()

    def get_dtype(self) -> Any:
        return self._inner.get_dtype()

    def __getitem__(self, index: Any) -> Any:
        return self._counting.add(self._inner[index])
