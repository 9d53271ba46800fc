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
    """Some columns of the rows: [R, 2] chunk (a number among the call's objects) and row."""

    columns: tuple[str, ...]
    where: np.ndarray


@dataclass(frozen=True)
class RowsMessage:
    """A BatchRef as a call carries it."""

    rows: int
    pieces: tuple[Piece, ...]
    marks: dict[str, np.ndarray]


def pack(call: Call, needs: Sequence[str] | None) -> tuple[Call, list[Any]]:
    """A call with its rows as messages, and the objects that they refer to. Only columns in `needs` travel."""
    objects: list[Any] = []
    places: dict[Any, int] = {}

    def message(value: Any) -> Any:
        if not isinstance(value, BatchRef):
            return value
        ref = value if needs is None else value.keep(needs)
        pieces = []
        for source in ref.sources:
            numbers = []
            for handle in source.handles:
                if handle not in places:
                    places[handle] = len(objects)
                    objects.append(handle)
                numbers.append(places[handle])
            where = source.where.copy()
            where[:, 0] = np.array(numbers, dtype=np.int64)[where[:, 0]] if numbers else 0
            columns = source.columns if needs is None else tuple(c for c in source.columns if c in needs)
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


def _gather(piece: Piece, objects: Sequence[Batch]) -> Batch:
    chunks = piece.where[:, 0]
    order = np.argsort(chunks, kind="stable")
    used, starts = np.unique(chunks[order], return_index=True)
    runs = np.split(order, starts[1:])
    parts = [
        objects[chunk].keep(piece.columns).select(piece.where[rows, 1]) for chunk, rows in zip(used, runs, strict=True)
    ]
    if not parts:
        return Batch()
    joined = concat(parts)
    return joined if np.all(np.diff(order) > 0) else joined.select(np.argsort(order))
