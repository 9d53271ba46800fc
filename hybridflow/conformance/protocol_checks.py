"""Dispatch protocols, tried by the round trip over layouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.conformance.expectations import ExpectationError, describe_error, expect, expect_again, violations
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
    """Try a protocol: `collect` puts back what `distribute` hands out, or makes a value of it; it joins metrics too."""
    refused = ""
    tried = 0
    for (name, layout), (what, rows) in product(LAYOUTS.items(), _kinds_of_rows()):
        try:
            parts = cls().distribute(layout, Call((rows,)))
        except ValueError as error:  # a protocol may refuse what it cannot hand out
            refused = str(error)
            continue
        except KeyError as error:  # and it may need groups
            if rows.driver_columns or not any(mark in str(error) for mark in ("group_id", "copy_id")):
                raise
            refused = f"it reads {error}, which these rows have not; dispatch.groups knows the groups of any rows"
            continue
        tried += 1
        on = f"{what}, {name}: "
        expect_again(on, _handed_out(parts), _handed_out(cls().distribute(layout, Call((rows,)))))
        _round_trip(cls(), on, layout, parts, len(rows))
    if not tried:  # then it is for arguments that are no rows: a list with one value a rank
        _values_of_ranks(cls(), refused)


def _values_of_ranks(protocol: Protocol, refused: str) -> None:
    for layout in LAYOUTS.values():
        try:
            parts = protocol.distribute(layout, Call(([*range(layout.size)],)))
        except ValueError as error:
            raise ExpectationError(
                f"it refuses every call, of rows ({refused}) and of lists with a value a rank ({error})"
            ) from None
        expect(len(parts) == layout.size, f"distribute gave {len(parts)} calls for {layout.size} ranks")
        protocol.collect(layout, [None if part is None else part.args[0] for part in parts])


def _round_trip(protocol: Protocol, on: str, layout: Layout, parts: Sequence[Call | None], rows: int) -> None:
    size = layout.size
    expect(len(parts) == size, f"{on}wrong number of calls: distribute gave {len(parts)} for {size} ranks")
    trouble = violations(partial(_rows_back, protocol, on, layout, parts, rows))
    if trouble and not _for_values(protocol, layout, parts, rows):
        raise ExpectationError(trouble[0])
    metrics: list[Any] = [None if part is None else Metrics(totals={"calls": 1.0}) for part in parts]
    try:
        joined = protocol.collect(layout, metrics)
    except Exception as error:
        raise ExpectationError(
            f"{on}collect of the ranks' metrics failed: {describe_error(error)}; it is asked to join these too: "
            "dispatch.concat does, and makes a list of values"
        ) from error
    all_metrics = all(
        isinstance(m, Metrics) for m in (joined if isinstance(joined, list) else [joined]) if m is not None
    )
    expect(
        all_metrics, f"{on}collect of the ranks' metrics gave a {type(joined).__name__}; choose outputs and concat them"
    )


def _rows_back(protocol: Protocol, on: str, layout: Layout, parts: Sequence[Call | None], rows: int) -> None:
    collected = protocol.collect(layout, [None if part is None else part.args[0] for part in parts])
    for whole in collected if isinstance(collected, list) else [collected]:
        expect(isinstance(whole, BatchRef), f"{on}collect gave a {type(whole).__name__} of rows; use dispatch.concat")
        numbers = _numbers(whole)
        expect(numbers == list(range(rows)), f"{on}rows do not come back as they were: {_short(numbers)}")


def _for_values(protocol: Protocol, layout: Layout, parts: Sequence[Call | None], rows: int) -> bool:
    """Tell whether every rank that is called has all rows, and what they return becomes one value, such as its mean.

    Such a protocol is for methods that give no rows.
    """
    called = [part for part in parts if part is not None]
    if not called or any(_numbers(part.args[0]) != list(range(rows)) for part in called):
        return False
    collected = protocol.collect(layout, [None if part is None else 1.0 for part in parts])
    return collected is not None and not isinstance(collected, (list, tuple))


def _handed_out(parts: Sequence[Call | None]) -> list[list[int] | None]:
    """Return by rank the numbers of its rows."""
    return [None if part is None else _numbers(part.args[0]) for part in parts]


def _numbers(rows: BatchRef) -> list[int]:
    numbers: list[int] = rows.get().dense("number").tolist() if len(rows) else []
    return numbers


def _kinds_of_rows() -> Iterator[tuple[str, BatchRef]]:
    """Yield rows in no groups, in groups of two, and in groups that lie in each other, as after a filter."""
    for count in ROWS:
        yield f"{count} rows", _rows(count)
    for count in ROWS:
        yield f"{2 * count} rows in groups of 2", _rows(count).repeat(2).select_columns([]) | _rows(2 * count)
    filtered = _rows(5).repeat(3).select([14, 3, 0, 9, 2, 4, 12, 10])
    yield "8 rows in uneven groups", filtered.select_columns([]) | _rows(8)


def _rows(rows: int) -> BatchRef:
    lengths = [n * 7 % 5 for n in range(rows)]
    responses = Ragged.of([[n] * k for n, k in enumerate(lengths)], np.int64)
    return BatchRef.from_local(Batch(number=np.arange(rows), response_ids=responses))


def _short(numbers: list[int]) -> str:
    return f"{numbers[:12]}" + (" and so on" if len(numbers) > 12 else "")
