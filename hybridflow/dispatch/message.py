"""A call as it travels to a rank: row numbers, the chunks that have them, and everything that is not rows.

`pack` names chunks and looks into none; `unpack`, on a rank, is given them and takes the rows out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef, Column, Plain
from hybridflow.batch.batch import from_wire, gather
from hybridflow.batch.columns import readonly
from hybridflow.batch.row_source import Source
from hybridflow.dispatch.protocol import Call

Piece = tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]
"""Some columns of the rows, and their runs as in `Source`, with chunks by their numbers among the call's."""

Taken = tuple[int | str, tuple[Piece, ...], Mapping[str, np.ndarray]]
"""An argument that is rows: its place (a number among the positional ones, or a name), its pieces and its marks."""

Message = tuple[tuple[Any, ...], Mapping[str, Any], tuple[Taken, ...]]
"""A call as it travels: its arguments, with None in the place of rows, and these. But for what a user passed it is made
of builtin types, with which pickle is quick."""


def pack(call: Call, reads: Sequence[str] | None) -> tuple[Message, list[Any]]:
    """Turn a call into a message and the chunks that its rows name, each once. Only columns in `reads` travel."""
    chunks: dict[Any, int] = {}

    def piece(source: Source, columns: tuple[str, ...]) -> Piece:
        number = chunks.setdefault
        return columns, tuple([(number(c, len(chunks)), start, stop) for c, start, stop in source.runs])

    def pieces(ref: BatchRef) -> tuple[Piece, ...]:
        sources = [(s, s.columns if reads is None else s.those(reads)) for s in ref.sources]
        return tuple([piece(s, columns) for s, columns in sources if columns])

    args = [*call.args]
    kwargs = {**call.kwargs}
    rows = []
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for place, value in places:
        if isinstance(value, BatchRef):
            rows.append((place, pieces(value), value.driver_columns))
            into: Any = args if isinstance(place, int) else kwargs
            into[place] = None
    return (tuple(args), kwargs, tuple(rows)), list(chunks)


def unpack(message: Message, chunks: Sequence[Plain]) -> Call:
    """Rebuild the call on a rank, its rows taken out of the chunks; columns that it does not name are not looked at."""
    positional, named, rows = message
    args = [*positional]
    kwargs = {**named}
    for place, pieces, marks in rows:
        taken: dict[str, Column] = {}
        for columns, runs in pieces:
            there = [from_wire(chunk, columns) for chunk in chunks]
            taken |= gather([(there[number], start, stop) for number, start, stop in runs], columns)
        for name, mark in marks.items():
            taken[name] = readonly(mark)
        into: Any = args if isinstance(place, int) else kwargs
        into[place] = Batch._unchecked(taken)
    return Call(tuple(args), kwargs)
