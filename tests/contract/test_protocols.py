"""Protocols by the round trip: what comes back changed is told. Ours are in test_parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hybridflow import dispatch
from hybridflow.contract.promise import broken
from hybridflow.contract.protocols import try_protocol
from hybridflow.dispatch import Call
from hybridflow.parallel.layout import Layout


class Good(dispatch.Protocol):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        return [dispatch.take(call, np.arange(rank, dispatch.count(call), layout.size)) for rank in range(layout.size)]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return dispatch.concat(outputs)


class OneCall(Good):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        return [call]


class DropsTheRest(Good):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        each = dispatch.count(call) // layout.size
        return [dispatch.take(call, np.arange(rank * each, (rank + 1) * each)) for rank in range(layout.size)]


class SharesRows(Good):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        return [part for part in dispatch.split(call, layout.data) for _ in range(layout.size // layout.data)]


class ForgetsMetrics(Good):
    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        found = dispatch.concat(outputs)
        return found if hasattr(found, "numbered") else 1.0


class OnlyPairs(Good):
    """May refuse what it cannot hand out."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        if layout.size % 2:
            raise ValueError("an even number of ranks is wanted")
        return super().distribute(layout, call)


class RefusesAll(Good):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        raise ValueError("never")


@pytest.mark.parametrize("cls", [Good, OnlyPairs])
def test_a_round_trip_is_enough(cls: type[dispatch.Protocol]) -> None:
    assert broken(lambda: try_protocol(cls)) == []


@pytest.mark.parametrize(
    ("cls", "line"),
    [
        (OneCall, "0 rows, data 2: wrong number of calls: distribute gave 1 for 2 ranks"),
        (DropsTheRest, "1 rows, data 2: rows do not come back as they were: []"),
        (SharesRows, "is in several of the outputs that were joined; collect must choose one of them"),
        (ForgetsMetrics, "collect of the ranks' metrics gave a float"),
        (RefusesAll, "it refuses every call, of rows (never) and of lists with a value a rank (never)"),
    ],
)
def test_a_mistake_is_told(cls: type[dispatch.Protocol], line: str) -> None:
    (found,) = broken(lambda: try_protocol(cls))
    assert line in found
