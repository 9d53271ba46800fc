"""Dispatch: how a call on a role becomes calls on its ranks, and their outputs one result."""

from hybridflow.dispatch.interface import Interface, Result, RowsT, Streamed
from hybridflow.dispatch.method import (
    Method,
    Reads,
    declarations,
    methods,
    unknown_protocols,
    using,
    with_columns,
)
from hybridflow.dispatch.protocol import Call, Protocol, protocols, register
from hybridflow.dispatch.rows import concat, count, groups, groups_of, join, split, take

__all__ = [
    "Call", "Interface", "Method", "Protocol", "Reads", "Result", "RowsT", "Streamed", "concat", "count",
    "declarations", "groups", "groups_of", "join", "methods", "protocols", "register", "split", "take",
    "unknown_protocols", "using", "with_columns",
]  # fmt: skip
