"""Dispatch protocols, tried by the round trip over layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.contract.promise import BrokenPromiseError, expect
from hybridflow.dispatch import Call, Protocol
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout

LAYOUTS = {
    "1 rank": Layout(),
    "data 2": Layout(data=2),
    "data 5": Layout(data=5),
    "tensor 2 x data 2": Layout(tensor=2, data=2),
    "tensor 2 x pipeline 2 x data 3": Layout(2, 2, 3),
    "the same, generating as 1 x 1": Layout(2, 2, 3, generation=(1, 1)),
    "the same in another order of ranks": Layout(2, 2, 3, order="pp-dp-tp-cp-ep"),
}
ROWS = (0, 1, 4, 11)


def try_protocol(cls: type[Protocol]) -> None:
    """What `distribute` hands out, `collect` puts back as it was; ranks' metrics it joins too."""
    refused, tried = "", 0
    for name, layout in LAYOUTS.items():
        for rows in ROWS:
            try:
                parts = cls().distribute(layout, Call((_rows(rows),)))
            except ValueError as error:  # a protocol may refuse what it cannot hand out
                refused = str(error)
                continue
            tried += 1
            _round_trip(cls(), f"{rows} rows, {name}: ", layout, parts, rows)
    if not tried:  # then it is for arguments that are no rows: a list with one value a rank
        _values_of_ranks(cls(), refused)


def _values_of_ranks(protocol: Protocol, refused: str) -> None:
    for layout in LAYOUTS.values():
        try:
            parts = protocol.distribute(layout, Call(([*range(layout.size)],)))
        except ValueError as error:
            raise BrokenPromiseError(
                f"it refuses every call, of rows ({refused}) and of lists with a value a rank ({error})"
            ) from None
        expect(len(parts) == layout.size, f"distribute gave {len(parts)} calls for {layout.size} ranks")
        protocol.collect(layout, [None if part is None else part.args[0] for part in parts])


def _round_trip(protocol: Protocol, on: str, layout: Layout, parts: Sequence[Call | None], rows: int) -> None:
    size = layout.size
    expect(len(parts) == size, f"{on}wrong number of calls: distribute gave {len(parts)} for {size} ranks")
    outputs = [None if part is None else part.args[0] for part in parts]
    found = protocol.collect(layout, outputs)
    for whole in found if isinstance(found, list) else [found]:
        expect(isinstance(whole, BatchRef), f"{on}collect gave a {type(whole).__name__} of rows; use dispatch.concat")
        numbers = whole.get().dense("number").tolist() if len(whole) else []
        expect(numbers == list(range(rows)), f"{on}rows do not come back as they were: {_short(numbers)}")
    metrics: list[Any] = [None if part is None else Metrics(totals={"calls": 1.0}) for part in parts]
    joined = protocol.collect(layout, metrics)
    told = all(isinstance(m, Metrics) for m in (joined if isinstance(joined, list) else [joined]) if m is not None)
    expect(told, f"{on}collect of the ranks' metrics gave a {type(joined).__name__}; choose outputs and concat them")


def _rows(rows: int) -> BatchRef:
    lengths = [n * 7 % 5 for n in range(rows)]
    responses = Ragged.of([[n] * k for n, k in enumerate(lengths)], np.int64)
    return BatchRef.here(Batch(number=np.arange(rows), response_ids=responses))


def _short(numbers: list[int]) -> str:
    return f"{numbers[:12]}" + (" and so on" if len(numbers) > 12 else "")
