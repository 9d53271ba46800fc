"""The rows of a call that streams, as the controller sees them: by reference, as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def finished(sent: PendingCall, collect: Callable[[Sequence[Any]], Any], columns: Sequence[str]) -> Streamed[BatchRef]:
    """Yield rows of any rank that the protocol collects, with their numbers, which they also have as their `origin`.

    Raises RoleError if a call fails, this one or another.
    """
    streams = {chunks[0]: rank for rank, chunks in enumerate(sent.chunks) if chunks}
    while streams:
        ready, _ = ray.wait(list(streams), timeout=LOOK_UP_S, fetch_local=False)
        if not ready:
            sent.supervisor.poll()
        for stream in ready:
            known = next(stream, None)
            if known is None:
                del streams[stream]
                continue
            outputs: list[BatchRef | None] = [None] * len(sent.rows)
            piece = outputs[streams[stream]] = _piece(sent, streams[stream], known, stream, columns)
            collected = collect(outputs)
            if collected is not None:  # a rank that gives what others give too
                rows = np.sort(np.asarray(piece.origin))
                yield rows, collected.with_origin(rows)
    sent.supervisor.wait(sent.record)


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
