"""A call that has been sent: what each rank was asked, and references to the rows that it will give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hybridflow.batch import BatchRef, Metadata
from hybridflow.batch.joining import concat
from hybridflow.batch.row_operations import even_sizes
from hybridflow.controller.call_record import CallRecord
from hybridflow.controller.failure_policy import RankSource
from hybridflow.controller.object_store import StoredChunk, parts_of
from hybridflow.controller.supervisor import Supervisor
from hybridflow.dispatch import Call, Method
from hybridflow.dispatch.message import pack
from hybridflow.runtime.messages import CallRequest


@dataclass(frozen=True)
class PendingCall:
    """Call on its way.

    Attributes:
        rows: by rank, those that it was given; None: none, or it was not called.
        chunks: by rank, the objects that its rows will be; or the one stream of them.
    """

    record: CallRecord
    rows: Sequence[BatchRef | None]
    chunks: Sequence[Sequence[Any]]
    supervisor: Supervisor

    def lazy_outputs(self, columns: Sequence[str]) -> Sequence[BatchRef | None]:
        """Return by rank what it will give: these columns for as many rows as it was given."""
        return LazyOutputs(self, columns)

    def lazy_output(self, rank: int, columns: Sequence[str]) -> BatchRef | None:
        """Return what one rank will give; None if it was given no rows."""
        rows = self.rows[rank]
        if rows is None:
            return None
        if len(self.chunks[rank]) == 1:
            return BatchRef.from_chunk(self._chunk(rank, 0), rows.rows, columns, rows.origin)
        sizes = even_sizes(rows.rows, len(self.chunks[rank]))
        pieces = [BatchRef.from_chunk(self._chunk(rank, number), size, columns) for number, size in enumerate(sizes)]
        return concat(pieces).with_origin(rows.origin)

    def results(self) -> list[BatchRef | None]:
        """Return by rank what it has given, in one chunk; waits for it."""
        refs: list[BatchRef | None] = []
        for rank, report in enumerate(self.supervisor.wait(self.record)):
            if report is None:
                refs.append(None)
                continue
            (known,) = report.chunks
            rows = self.rows[rank]
            origin = rows.origin if rows is not None and len(rows) == known.rows else None
            refs.append(BatchRef.from_chunk(self._chunk(rank, 0), known.rows, known.kinds, origin))
        return refs

    def _chunk(self, rank: int, number: int) -> StoredChunk:
        supervisor = self.supervisor
        record = self.record  # and not all that was sent: it names the rows of the call

        def metadata() -> Metadata:
            report = supervisor.wait(record)[rank]
            assert report is not None  # it was called
            return report.chunks[number]

        return StoredChunk(self.chunks[rank][number], metadata, partial(supervisor.fetch, record, rank))


class LazyOutputs(Sequence[BatchRef | None]):
    """Put together where it is looked at, for a protocol looks at few of many ranks."""

    def __init__(self, sent: PendingCall, columns: Sequence[str]) -> None:
        self._sent = sent
        self._columns = columns

    def __len__(self) -> int:
        return len(self._sent.rows)

    def __getitem__(self, rank: Any) -> Any:
        if isinstance(rank, slice):
            return [self[number] for number in range(len(self))[rank]]
        return self._sent.lazy_output(range(len(self))[rank], self._columns)


Packed = tuple[bytes, list[Any], int, BatchRef | None]
"""The order, the objects that it names, in how many chunks it will be answered, and the rows that it is about."""


@dataclass(frozen=True)
class CallSender:
    """Sends calls to the ranks of a role.

    Attributes:
        pool: where the ranks are; it is asked at each call, for it may have been given others.
        chunk_rows: of the chunks in which rows are to be given; see `object_store.put`.
    """

    role: str
    pool: RankSource
    supervisor: Supervisor
    chunk_rows: int | None = None

    def __call__(self, name: str, method: Method, parts: Sequence[Call | None], collect: Any) -> PendingCall:
        """Send every rank its part. Ranks often share one; it is packed once."""
        packed: dict[int, Packed] = {}
        called: list[int] = []
        reports: list[Any] = []
        rows: list[BatchRef | None] = [None] * len(parts)
        chunks: list[Sequence[Any]] = [()] * len(parts)
        for rank, (handle, part) in enumerate(zip(self.pool.ranks, parts, strict=True)):
            if part is None:
                continue
            if id(part) not in packed:
                packed[id(part)] = self._pack(name, method, part)
            order, objects, answered, rows[rank] = packed[id(part)]
            report, *chunks[rank] = _send(handle, method, order, objects, answered)
            called.append(rank)
            reports.append(report)
        record = CallRecord(self.role, name, called, reports, len(parts), collect, pool=self.pool)
        self.supervisor.watch(record)
        return PendingCall(record, rows, chunks, self.supervisor)

    def _pack(self, name: str, method: Method, part: Call) -> Packed:
        message, chunks = pack(part, method.reads)
        rows = part.rows()
        answered = 1 if method.gives is None or rows is None else parts_of(len(rows), self.chunk_rows)
        order = CallRequest(self.role, name, message, answered).encode()
        return order, [chunk.data for chunk in chunks], answered, rows


def _send(rank: Any, method: Method, order: bytes, objects: list[Any], answered: int) -> Sequence[Any]:
    """Send a call; return the report to come, and the rows; of a method that streams, the stream of them."""
    if method.streams:
        stream = rank.stream_rows.remote(order, *objects)
        return [rank.streamed.remote(), stream]
    if not method.returns_rows:
        return [rank.call.remote(order, *objects)]
    send = rank.call_rows if answered == 1 else rank.call_rows.options(num_returns=1 + answered)
    references: Sequence[Any] = send.remote(order, *objects)
    return references
