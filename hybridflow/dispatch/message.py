"""What of a call travels to a rank: row numbers, the chunks that hold them, and everything that is not rows.

`pack` names chunks and looks into none; `unpack`, on a rank, is given them and takes the rows out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridflow.batch import Batch, BatchRef, Column
from hybridflow.batch.batch import gather
from hybridflow.batch.columns import held
from hybridflow.batch.source import Source
from hybridflow.dispatch.protocol import Call

Piece = tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]
"""Some columns of the rows, and their runs as in `Source`, with chunks by their numbers among the call's."""


class RowsMessage(NamedTuple):
    """A BatchRef as a call carries it."""

    pieces: tuple[Piece, ...]
    marks: Mapping[str, np.ndarray]


def pack(call: Call, reads: Sequence[str] | None) -> tuple[Call, list[Any]]:
    """A call with its rows as messages, and the chunks that they name, each once. Only columns in `reads` travel."""
    chunks: dict[Any, int] = {}

    def piece(source: Source, columns: tuple[str, ...]) -> Piece:
        number = chunks.setdefault
        return columns, tuple([(number(c, len(chunks)), start, stop) for c, start, stop in source.runs])

    def message(value: Any) -> Any:
        if not isinstance(value, BatchRef):
            return value
        sources = [(s, s.columns if reads is None else s.those(reads)) for s in value.sources]
        return RowsMessage(tuple([piece(s, columns) for s, columns in sources if columns]), value.marks)

    return call.map(message), list(chunks)


def unpack(call: Call, chunks: Sequence[Batch]) -> Call:
    """On a rank: the call with its rows taken out of the chunks."""

    def fetch(value: Any) -> Any:
        if not isinstance(value, RowsMessage):
            return value
        taken: dict[str, Column] = {}
        for columns, runs in value.pieces:
            taken |= gather([(chunks[number], start, stop) for number, start, stop in runs], columns)
        return Batch.trusted(taken | {name: held(mark) for name, mark in value.marks.items()})

    return call.map(fetch)
