"""Protocols by the round trip: what comes back changed is told. Ours are in test_parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hybridflow import dispatch
from hybridflow.conformance.expectations import violations
from hybridflow.conformance.protocol_checks import try_protocol
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


class ByGroup(Good):
    """Needs the groups of its rows, and takes them from the marks that only some rows have."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        rows = call.rows()
        assert rows is not None
        group = rows.driver_columns["group_id"]
        return [dispatch.take(call, np.flatnonzero(group % layout.size == rank)) for rank in range(layout.size)]


class ByAnyGroup(Good):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        group = dispatch.groups(call)
        return [dispatch.take(call, np.flatnonzero(group % layout.size == rank)) for rank in range(layout.size)]


class MeanOfAll(dispatch.Protocol):
    """Every rank is asked about all rows; the result is the mean of what they say."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        return [call] * layout.size

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        found = dispatch.concat(outputs)
        return float(np.mean(found)) if isinstance(found, list) else found


class MeanOfAnything(MeanOfAll):
    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return sum(outputs) / len(outputs)


class LosesGroups(Good):
    """Right for rows in no groups, and wrong for others."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        _, first = np.unique(dispatch.groups(call), return_index=True)
        return dispatch.split(dispatch.take(call, first), layout.size)


class ByChance(Good):
    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        to = DICE.integers(0, layout.size, dispatch.count(call))
        return [dispatch.take(call, np.flatnonzero(to == rank)) for rank in range(layout.size)]


DICE = np.random.default_rng(0)


@pytest.mark.parametrize("cls", [Good, OnlyPairs, ByGroup, ByAnyGroup, MeanOfAll])
def test_a_round_trip_is_enough(cls: type[dispatch.Protocol]) -> None:
    assert violations(lambda: try_protocol(cls)) == []


@pytest.mark.parametrize(
    ("cls", "line"),
    [
        (OneCall, "0 rows, data 2: wrong number of calls: distribute gave 1 for 2 ranks"),
        (DropsTheRest, "1 rows, data 2: rows do not come back as they were: []"),
        (SharesRows, "is in several of the outputs that were joined; collect must choose one of them"),
        (LosesGroups, "2 rows in groups of 2, 1 rank: rows do not come back as they were: [0]"),
        (ByChance, "it gives something else when it is called again with the same"),
        (MeanOfAnything, "collect of the ranks' metrics failed: TypeError"),
        (ForgetsMetrics, "collect of the ranks' metrics gave a float"),
        (RefusesAll, "it refuses every call, of rows (never) and of lists with a value a rank (never)"),
    ],
)
def test_a_mistake_is_told(cls: type[dispatch.Protocol], line: str) -> None:
    (found,) = violations(lambda: try_protocol(cls))
    assert line in found
