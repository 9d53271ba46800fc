"""Matrices of cases, of which `make test` runs a thin diagonal and `make test-all` every one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[tuple[str, ...]], diagonal: Collection[tuple[str, ...]]) -> list[Any]:
    """Parameters of every case, named by its parts; those off the diagonal are slow."""
    every = list(cases)
    assert set(diagonal) <= set(every), set(diagonal) - set(every)
    return [
        pytest.param(*case, id="-".join(case), marks=() if case in diagonal else pytest.mark.slow) for case in every
    ]
