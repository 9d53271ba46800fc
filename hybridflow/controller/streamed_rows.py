"""The rows of a call that streams, as the controller sees them: by reference, as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray

from hybridflow.batch import BatchRef
from hybridflow.controller.call_reports import LOOK_UP_S
from hybridflow.controller.object_store import StoredChunk
from hybridflow.controller.pending_call import PendingCall
from hybridflow.dispatch import Streamed
from hybridflow.runtime.messages import Report


@dataclass(frozen=True)
class StreamedCall:
    """Call that streams.

    Attributes:
        collect: what its protocol makes of the ranks' rows.
        columns: that it gives.
        first: number of its first row among those of the caller.
    """

    sent: PendingCall
    collect: Callable[[Sequence[Any]], Any]
    columns: Sequence[str]
    first: int = 0


class StreamedRows(Iterator[tuple[np.ndarray, BatchRef]]):
    """Rows of one call or several, as any of their ranks finishes some.

    Gives rows that the protocol collects, with their numbers, which they also have as their `origin`. Raises RoleError
    if a call fails, one of these or another.
    """

    def __init__(self, calls: Sequence[StreamedCall]) -> None:
        self._calls = calls
        self._rows = _finished(calls)

    def __next__(self) -> tuple[np.ndarray, BatchRef]:
        return next(self._rows)

    def beside(self, others: StreamedRows, first: int) -> StreamedRows:
        """Return these rows and those of other calls, whose numbers begin with `first`. Neither has been read."""
        return StreamedRows([*self._calls, *(replace(call, first=call.first + first) for call in others._calls)])


def _finished(calls: Sequence[StreamedCall]) -> Streamed[BatchRef]:
    streams = {chunks[0]: (call, rank) for call in calls for rank, chunks in enumerate(call.sent.chunks) if chunks}
    while streams:
        ready, _ = ray.wait(list(streams), timeout=LOOK_UP_S, fetch_local=False)
        if not ready:
            calls[0].sent.supervisor.poll()
        for stream in ready:
            known = next(stream, None)
            if known is None:
                del streams[stream]
                continue
            call, rank = streams[stream]
            outputs: list[BatchRef | None] = [None] * len(call.sent.rows)
            piece = outputs[rank] = _piece(call.sent, rank, known, stream, call.columns)
            collected = call.collect(outputs)
            if collected is not None:  # a rank that gives what others give too
                rows = np.sort(np.asarray(piece.origin)) + call.first
                yield rows, collected.with_origin(rows)
    for call in calls:
        call.sent.supervisor.wait(call.sent.record)


def _piece(sent: PendingCall, rank: int, known: Any, stream: Any, columns: Sequence[str]) -> BatchRef:
    """Return the next rows of a rank; that they were made is known, what they are like too."""
    try:
        report = Report.decode(ray.get(known))
    except ray.exceptions.RayError:  # its process has died, which the report on the call says better
        sent.supervisor.wait(sent.record)
        raise
    call_rows = sent.rows[rank]
    assert call_rows is not None and call_rows.origin is not None
    (metadata,) = report.chunks
    chunk = StoredChunk(next(stream), lambda: metadata, partial(sent.supervisor.fetch, sent.record, rank))
    return BatchRef.from_chunk(chunk, metadata.rows, columns).with_origin(np.asarray(call_rows.origin)[report.value])
