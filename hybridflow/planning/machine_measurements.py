"""Measurements of a machine by `hybridflow profile`, before they are made a hardware file: sizes and seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from hybridflow.config.schema import Device, DType
from hybridflow.models import ModelShape

Timed = list[list[float]]
"""Of each piece of work its sizes, and then its seconds."""


@dataclass(frozen=True)
class CallTime:
    """Call of a role on one rank, timed.

    Attributes:
        method: as in a flow.
        rows: that it was called with.
        prompt_tokens: of each.
        response_tokens: of each, as they were sampled.
        micro_tokens: of a micro-batch, if it has any.
        seconds: on the rank; median of a few.
        wall_s: until the caller had its result.
    """

    method: str
    shape: ModelShape
    rows: int
    prompt_tokens: int
    response_tokens: tuple[int, ...]
    seconds: float
    wall_s: float
    micro_tokens: int = 8192

    @property
    def tokens(self) -> int:
        """Return the tokens of all rows."""
        return self.rows * self.prompt_tokens + sum(self.response_tokens)


@dataclass
class Measurements:
    """Everything that was measured.

    Attributes:
        cores: that the slots of a node share; 0: each slot has a device of its own.
        concurrent_rows, kv_cache_bytes: of generation, in the calls.
        dtype: of the models, in the calls.
        products: by number format, of [m, k] with [k, n]: m, k, n, seconds.
        attention: rows, heads, tokens, numbers of a head, seconds.
        copies: bytes, seconds.
        collectives: by kind and ranks: bytes on a rank, seconds.
        together: by how many ranks did the same piece of work at once, the seconds of the slowest.
        calls: of roles.
        nothing: by ranks, seconds of a call that does nothing.
        flows: by ranks, of flows that compute nothing: calls that score, calls that learn, and seconds.
        store: bytes, and the seconds of a put and of a get.
    """

    device: Device
    devices_per_node: int
    memory_bytes: float
    cores: int
    concurrent_rows: int
    kv_cache_bytes: float
    dtype: DType = DType.float32
    products: dict[DType, Timed] = field(default_factory=dict)
    attention: Timed = field(default_factory=list)
    copies: Timed = field(default_factory=list)
    collectives: dict[tuple[str, int], Timed] = field(default_factory=dict)
    together: dict[int, float] = field(default_factory=dict)
    calls: list[CallTime] = field(default_factory=list)
    nothing: dict[int, float] = field(default_factory=dict)
    flows: dict[int, Timed] = field(default_factory=dict)
    store: Timed = field(default_factory=list)
