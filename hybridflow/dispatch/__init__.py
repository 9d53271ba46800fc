"""Dispatch: how a call on a role becomes calls on its ranks, and their outputs one result."""

from hybridflow.dispatch.protocol import (
    Call,
    Method,
    Protocol,
    concat,
    count,
    methods,
    protocols,
    register,
    take,
    using,
)

__all__ = ["Call", "Method", "Protocol", "concat", "count", "methods", "protocols", "register", "take", "using"]
