"""What of a call travels to a rank: row numbers, the chunks that hold them, and everything that is not rows.

`pack` names chunks and looks into none; `unpack`, on a rank, is given them and takes the rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.batch import gather
from hybridflow.batch.source import Source
from hybridflow.dispatch.protocol import Call


@dataclass(frozen=True)
class Piece:
    """Some columns of the rows.

    Attributes:
        runs: [K, 3] int64 (chunk, start, stop); a chunk is a number among the call's chunks.
        like: a chunk that has these columns, for a rank that gets no rows; None: nobody has any.
    """

    columns: tuple[str, ...]
    runs: np.ndarray
    like: int | None = None


@dataclass(frozen=True)
class RowsMessage:
    """A BatchRef as a call carries it."""

    pieces: tuple[Piece, ...]
    marks: dict[str, np.ndarray]


def pack(call: Call, reads: Sequence[str] | None) -> tuple[Call, list[Any]]:
    """A call with its rows as messages, and the chunks that they name, each once. Only columns in `reads` travel."""
    chunks: dict[Any, int] = {}

    def number(chunk: Any) -> int:
        return chunks.setdefault(chunk, len(chunks))

    def message(value: Any) -> Any:
        if not isinstance(value, BatchRef):
            return value
        ref = value if reads is None else value.keep(reads)
        return RowsMessage(tuple(_piece(source, number) for source in ref.sources), dict(ref.marks))

    return call.map(message), list(chunks)


def _piece(source: Source, number: Callable[[Any], int]) -> Piece:
    runs = source.runs()
    if not len(runs):
        return Piece(source.columns, runs, number(source.chunks[0]) if source.chunks else None)
    numbers = np.array([number(chunk) for chunk in source.chunks], dtype=np.int64)
    runs[:, 0] = numbers[runs[:, 0]]
    return Piece(source.columns, runs)


def unpack(call: Call, chunks: Sequence[Batch]) -> Call:
    """On a rank: the call with its rows taken out of the chunks."""

    def fetch(value: Any) -> Any:
        if not isinstance(value, RowsMessage):
            return value
        return Batch(**dict(chain.from_iterable(_taken(p, chunks).items() for p in value.pieces)), **value.marks)

    return call.map(fetch)


def _taken(piece: Piece, chunks: Sequence[Batch]) -> Batch:
    if len(piece.runs):
        return gather(chunks, piece.runs, piece.columns)
    like = Batch() if piece.like is None else chunks[piece.like]
    return gather([like], piece.runs, [name for name in piece.columns if name in like])
