"""The store: put rows in, name a part of them in a call, fetch that part on a rank.

A handle of a `BatchRef` is a Ray object reference here, and only here. The controller never looks inside an object;
a rank is sent references to the chunks that hold its rows, and which rows those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from hybridflow.batch import Batch, BatchRef, concat
from hybridflow.dispatch import Call


def put(batch: Batch) -> BatchRef:
    """Put rows into the store."""
    return BatchRef.of(ray.put(batch), len(batch), batch.columns)


@dataclass(frozen=True)
class Piece:
    """Some columns of the rows.

    Attributes:
        where: [R, 2] chunk (a number among the call's objects) and row.
        like: a chunk that has these columns, for a rank that gets no rows; None: nobody has any.
    """

    columns: tuple[str, ...]
    where: np.ndarray
    like: int | None = None


@dataclass(frozen=True)
class RowsMessage:
    """A BatchRef as a call carries it."""

    rows: int
    pieces: tuple[Piece, ...]
    marks: dict[str, np.ndarray]


def pack(call: Call, needs: Sequence[str] | None, whole: Call | None = None) -> tuple[Call, list[Any]]:
    """A call with its rows as messages, and the objects that they refer to. Only columns in `needs` travel.

    Args:
        whole: the call that this one is a part of. A part without rows learns from it what its columns are like.
    """
    objects: list[Any] = []
    places: dict[Any, int] = {}
    samples = _samples(whole or call)

    def place(handle: Any) -> int:
        if handle not in places:
            places[handle] = len(objects)
            objects.append(handle)
        return places[handle]

    def message(value: Any) -> Any:
        if not isinstance(value, BatchRef):
            return value
        ref = value if needs is None else value.keep(needs)
        pieces = []
        for source in ref.sources:
            columns = source.columns if needs is None else tuple(c for c in source.columns if c in needs)
            if not len(source.where):
                sample = samples.get(source.columns)
                pieces.append(Piece(columns, source.where, None if sample is None else place(sample)))
                continue
            numbers = np.array([place(handle) for handle in source.handles], dtype=np.int64)
            where = source.where.copy()
            where[:, 0] = numbers[where[:, 0]]
            pieces.append(Piece(columns, where))
        return RowsMessage(ref.rows, tuple(pieces), ref.marks)

    return call.map(message), objects


def unpack(call: Call, objects: Sequence[Batch]) -> Call:
    """On a rank: the call with its rows fetched."""

    def fetch(value: Any) -> Any:
        if not isinstance(value, RowsMessage):
            return value
        columns = {name: column for piece in value.pieces for name, column in _gather(piece, objects).items()}
        return Batch(**columns, **value.marks)

    return call.map(fetch)


def _samples(call: Call) -> dict[tuple[str, ...], Any]:
    """By the columns of a source, a chunk that has them: one with a row, if there is any."""
    refs = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, BatchRef)]
    sources = sorted((s for ref in refs for s in ref.sources if s.handles), key=lambda s: len(s.where))
    return {s.columns: s.handles[s.where[0, 0] if len(s.where) else 0] for s in sources}


def _gather(piece: Piece, objects: Sequence[Batch]) -> Batch:
    if not len(piece.where):
        like = Batch() if piece.like is None else objects[piece.like]
        return like.keep([name for name in piece.columns if name in like]).select([])
    chunks = piece.where[:, 0]
    order = np.argsort(chunks, kind="stable")
    used, starts = np.unique(chunks[order], return_index=True)
    runs = np.split(order, starts[1:])
    parts = [
        objects[chunk].keep(piece.columns).select(piece.where[rows, 1]) for chunk, rows in zip(used, runs, strict=True)
    ]
    joined = concat(parts)
    return joined if np.all(np.diff(order) > 0) else joined.select(np.argsort(order))
