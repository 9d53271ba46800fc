"""Calls that sample, spread over the pools that generate; no ranks."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.batch import Batch, BatchRef
from hybridflow.parallel.layout import Layout
from hybridflow.trainer import disaggregated
from hybridflow.trainer.disaggregated import DisaggregatedActor

STREAM = "stream_id"


class Side:
    """Stands for a group that generates: says which random streams it sampled with."""

    def __init__(self, data: int) -> None:
        self.layout = Layout(data=data)
        self.counted = 0
        self.sampled: list[list[int]] = []

    def number_streams(self, rows: BatchRef) -> BatchRef:
        self.counted += 1
        return rows.for_call(**{STREAM: np.arange(len(rows))})

    def generate_sequences(self, rows: BatchRef) -> BatchRef:
        if STREAM not in rows.driver_columns:
            rows = self.number_streams(rows)
        self.sampled.append(rows.driver_columns[STREAM].tolist())
        return BatchRef.from_local(Batch(stream=rows.driver_columns[STREAM]))


@pytest.mark.parametrize("rows", [0, 1, 3, 10])
def test_a_call_is_spread_over_replicas_and_counts_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disaggregated, "put", BatchRef.from_local)
    lent, own = Side(2), Side(1)
    actor = DisaggregatedActor(lent, own, lends=True)
    with actor.weights_as_synced():
        found = actor.generate_sequences(BatchRef.from_local(Batch(prompt=np.arange(rows))))
    assert found.get().dense("stream").tolist() == [*range(rows)], "the rows of the call, in its order"
    assert own.counted + lent.counted == 1
    shares = [sum(map(len, side.sampled)) / side.layout.replicas for side in (own, lent)]
    assert abs(shares[0] - shares[1]) <= 1
