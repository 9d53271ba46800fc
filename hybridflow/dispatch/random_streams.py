"""Random streams: each row is sampled with a number that no other row has, in this call or any other of the run."""

from __future__ import annotations

from collections import Counter
from struct import pack

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.batch.hashed_ids import hashed_id
from hybridflow.batch.lineage import PLACE
from hybridflow.dispatch.protocol import Call

STREAM = "stream_id"


def with_streams(call: Call, step: int | None, number: int) -> Call:
    """Add the mark `stream_id` to a call's rows, unless they have that column.

    Args:
        step: of the algorithm in which it is made.
        number: how many calls that sample were made before it in that step.
    """
    rows = call.rows()
    if rows is None or STREAM in rows.columns:
        return call
    ids = stream_ids(rows, -1 if step is None else step, number)
    return call.map(lambda value: value.for_call(**{STREAM: ids}) if isinstance(value, BatchRef) else value)


def stream_ids(rows: BatchRef, step: int, number: int) -> np.ndarray:
    """Derive [R] int64, not negative, from the call and the row's place in the data flow, so from no rank and no
    layout.

    The place is that of the prompt in the order of the run, which copy of it the row is and, where rows of one call
    have the same place or none, how many of these come before it.
    """
    nothing = np.zeros(len(rows), dtype=np.int64)
    places = rows.lineage.get(PLACE, nothing - 1).tolist()
    copies = rows.driver_columns.get("copy_id", nothing).tolist()
    before: Counter[tuple[int, int]] = Counter()
    ids = []
    for key in zip(places, copies, strict=True):
        ids.append(hashed_id(pack("<5q", step, number, *key, before[key])))
        before[key] += 1
    return np.array(ids, dtype=np.int64)
