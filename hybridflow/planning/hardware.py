"""Hardware: what devices, their links and the calls on them are able to do, as a hardware file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybridflow.config.schema import Device, DType


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
        cores: that the devices of a node share, where a device is a process; 0: each is hardware of its own.
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
    cores: int = 0
