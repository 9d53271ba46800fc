"""Hardware: what devices, their links and the calls on them are able to do, as a hardware file says."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import log
from typing import Any

import numpy as np

from hybridflow.config.schema import Device, DType


@dataclass(frozen=True)
class Curve:
    """Value that depends on a size: linear in the size's logarithm between those given, constant beyond them.

    Raises ValueError unless there are as many values as sizes, one at least, and the sizes rise from above 0.
    """

    sizes: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in zip((0.0, *self.sizes), self.sizes, strict=False))
        if not self.sizes or len(self.sizes) != len(self.values) or not rises:
            raise ValueError(
                f"sizes {list(self.sizes)} with values {list(self.values)}: as many of both were expected, one at "
                "least, with sizes that rise from above 0"
            )

    def at(self, size: Any) -> Any:
        """Return the value at a size, or at each of an array of them."""
        if isinstance(size, np.ndarray):
            return np.interp(np.log(np.maximum(size, 1e-9)), self._logarithms, self.values)
        above = bisect_right(self.sizes, size)  # by hand, as numpy takes long for one number
        if above in (0, len(self.sizes)):
            return self.values[max(0, above - 1)]
        low, high = self._logarithms[above - 1 : above + 1]
        share = (log(size) - low) / (high - low)
        return self.values[above - 1] + share * (self.values[above] - self.values[above - 1])

    @cached_property
    def _logarithms(self) -> tuple[float, ...]:
        return tuple(map(log, self.sizes))


@dataclass(frozen=True)
class Link:
    """Way between devices.

    Attributes:
        latency_s: of a message, whatever its size.
        bytes_per_s: of one device, in one direction.
    """

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Efficiency:
    """Shares of what a device or a link can do at most that work reaches; 1 is all of it.

    Attributes:
        matmul: of `flops`, by the size of a product of matrices, (m·k·n)^(1/3).
        attention: of `flops`, by the tokens of a row: attention in a training engine, or over a prompt.
        reading: of `memory_bytes_per_s`, where decoding reads weights, keys and values.
        updating: of `memory_bytes_per_s`, where an optimizer reads and writes its state.
        link: of a link's `bytes_per_s`, by the bytes of a message.
    """

    matmul: Curve = Curve((128.0, 512.0, 2048.0, 8192.0), (0.05, 0.3, 0.6, 0.75))
    attention: Curve = Curve((128.0, 1024.0, 8192.0), (0.1, 0.3, 0.5))
    reading: float = 0.75
    updating: float = 0.7
    link: Curve = Curve((2.0**16, 2.0**20, 2.0**24, 2.0**28), (0.1, 0.4, 0.7, 0.8))


@dataclass(frozen=True)
class Overheads:
    """Costs of calls beside arithmetic, memory and links, in seconds if nothing else is said.

    Attributes:
        call: of a call on a role's ranks, from the controller and back.
        dispatch: that the controller takes for each call of a flow beside that, one call after the other.
        row: of each row that a rank takes and gives where a model computes it.
        backward: a backward pass, as a multiple of its forward's arithmetic; no seconds.
        elementwise: what a layer does beside products and attention, as a multiple of what its bytes take; no seconds.
        score: of a call that scores or learns, on its ranks, whatever its micro-batches.
        layer: of a layer in a pass of the training engine over a micro-batch.
        micro_batch: of such a pass, beside its layers.
        update: of an optimizer's step, beside its memory.
        generate: of a call that generates, beside its steps.
        engine_step: of a step of the generation engine, which is a token of each row.
        engine_layer: of a layer in it.
        engine_row: of a row in it.
        sync: of a weight sync, beside its bytes.
        sync_weight: of each weight in it, twice that if the weight comes from other ranks.
        sync_byte: of each byte of weights that a rank takes in one: to copy, to compare.
        grade: of a row that is graded, beside what its grader waits for, or whose numbers something is made of.
    """

    call: float = 2e-3
    dispatch: float = 0.0
    row: float = 5e-5
    backward: float = 2.0
    elementwise: float = 1.0
    score: float = 0.0
    layer: float = 1e-4
    micro_batch: float = 1e-3
    update: float = 5e-3
    generate: float = 0.1
    engine_step: float = 2e-3
    engine_layer: float = 2e-5
    engine_row: float = 1e-5
    sync: float = 0.05
    sync_weight: float = 0.0
    sync_byte: float = 1e-11
    grade: float = 1e-4


def slowness(ranks: float, cores: float, busy: float) -> float:
    """Return how many times as long work takes while so many ranks share cores; 0 cores: they share none."""
    if not cores:
        return 1.0
    share = min(1.0, max(0.0, ranks - 1) / max(cores - 1, 1.0))
    return max(1.0, ranks / cores) * (1 + (busy - 1) * share)


@dataclass(frozen=True)
class Hardware:
    """Nodes of equal devices.

    Attributes:
        source: where the numbers are from, for people.
        devices_per_node: how many a node has.
        memory_bytes: of one device; on a CPU its share of the node's.
        memory_bytes_per_s: at which a device reads its memory.
        flops: dense multiplications and additions a second that a device could do at most, by number format.
        within: between devices of a node.
        across: between nodes.
        host: between a device and its host's memory, where what is offloaded waits. On a CPU nothing moves.
        cores: that the devices of a node share, where a device is a process; 0: each is hardware of its own.
        busy: how many times as long work takes while all cores are at work, for what they share besides.
        crowded_latency_s: of a message within a node while more ranks than cores are at work; 0: as `within` has it.
        caches: how many times as fast as memory arrays are that caches may have, by their bytes.
        efficiency, overheads: what work reaches and takes; measured, or such as are usual on GPUs.
    """

    name: str
    source: str
    device: Device
    devices_per_node: int
    memory_bytes: float
    memory_bytes_per_s: float
    flops: Mapping[DType, float]
    within: Link
    across: Link
    host: Link = Link(1e-5, 2.5e10)
    cores: int = 0
    busy: float = 1.0
    crowded_latency_s: float = 0.0
    caches: Curve = Curve((1.0,), (1.0,))
    efficiency: Efficiency = field(default_factory=Efficiency)
    overheads: Overheads = field(default_factory=Overheads)

    def crowded(self, ranks: int) -> Hardware:
        """Return the hardware as so many ranks of a node find it, who wait longer for one another than for cores."""
        if not self.crowded_latency_s or ranks <= self.cores:
            return self
        return replace(self, within=replace(self.within, latency_s=self.crowded_latency_s), crowded_latency_s=0.0)

    def __hash__(self) -> int:
        return hash((self.name, self.source))  # `flops` is a mapping, which has none
