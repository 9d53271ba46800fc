"""What of a call travels to a rank: row numbers, the chunks that hold them, and everything that is not rows.

`pack` names chunks and looks into none; `unpack`, on a rank, is given them and takes the rows out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridflow.batch import Batch, BatchRef, Column, Plain
from hybridflow.batch.batch import gather, of_plain
from hybridflow.batch.columns import held
from hybridflow.batch.source import Source
from hybridflow.dispatch.protocol import Call

Piece = tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]
"""Some columns of the rows, and their runs as in `Source`, with chunks by their numbers among the call's."""


class Message(NamedTuple):
    """A call as it travels: builtin types, and what a user passed, for pickle is quick with the former.

    Attributes:
        args, kwargs: what is not rows; None stands where rows were.
        rows: of each argument that is rows, its place (a number among `args`, or a name), its pieces and its marks.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    rows: tuple[tuple[int | str, tuple[Piece, ...], Mapping[str, np.ndarray]], ...] = ()


def pack(call: Call, reads: Sequence[str] | None) -> tuple[Message, list[Any]]:
    """A call as a message, and the chunks that its rows name, each once. Only columns in `reads` travel."""
    chunks: dict[Any, int] = {}

    def piece(source: Source, columns: tuple[str, ...]) -> Piece:
        number = chunks.setdefault
        return columns, tuple([(number(c, len(chunks)), start, stop) for c, start, stop in source.runs])

    def pieces(ref: BatchRef) -> tuple[Piece, ...]:
        sources = [(s, s.columns if reads is None else s.those(reads)) for s in ref.sources]
        return tuple([piece(s, columns) for s, columns in sources if columns])

    args, kwargs = call
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    rows = [(place, pieces(value), value.marks) for place, value in places if isinstance(value, BatchRef)]
    return Message(*call.map(_without_rows), tuple(rows)), list(chunks)


def unpack(message: Message, chunks: Sequence[Plain]) -> Call:
    """On a rank: the call with its rows taken out of the chunks; columns that it does not name are not looked at."""
    args, kwargs = [*message.args], {**message.kwargs}
    for place, pieces, marks in message.rows:
        taken: dict[str, Column] = {}
        for columns, runs in pieces:
            there = [of_plain(chunk, columns) for chunk in chunks]
            taken |= gather([(there[number], start, stop) for number, start, stop in runs], columns)
        for name, mark in marks.items():
            taken[name] = held(mark)
        into: Any = args if isinstance(place, int) else kwargs
        into[place] = Batch.trusted(taken)
    return Call(tuple(args), kwargs)


def _without_rows(value: Any) -> Any:
    return None if isinstance(value, BatchRef) else value
