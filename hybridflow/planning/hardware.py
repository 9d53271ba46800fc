"""Hardware: what devices, their links and the calls on them are able to do, as a hardware file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
class Overheads:
    """Seconds that calls take whatever the sizes of what they compute: Python, kernels that are begun, messages.

    Attributes:
        call_s: of a call on a role, from the driver and back, beside what its ranks do.
        rank_call_s: of it, for each further rank.
        score_s, train_s: of a call that scores or learns, on a rank, whatever its micro-batches.
        micro_batch_s: of a micro-batch that goes through a training engine, forward.
        layer_s: of each layer that it goes through, forward.
        backward: how many times as much as these two a micro-batch takes forward and backward.
        row_s: of each row that is packed, and whose columns are cut out.
        generate_s: of a call that generates, on a rank.
        request_s: of each row that generation takes up and gives back: its prefill in an engine step of its own.
        engine_step_s: of a step of generation, which gives every row under way a token.
        engine_layer_s: of each layer in it.
        engine_row_s: of each row in it: it is scheduled, sampled and looked at.
        sync_s: of a weight sync.
        sync_weight_s: of each weight in it.
        grade_s, grade_row_s: of a call that grades, and of each row.
        rows_s, rows_row_s: of a call that computes of numbers alone, as advantages, and of each row.
    """

    call_s: float = 0.0
    rank_call_s: float = 0.0
    score_s: float = 0.0
    train_s: float = 0.0
    micro_batch_s: float = 0.0
    layer_s: float = 0.0
    backward: float = 3.0
    row_s: float = 0.0
    generate_s: float = 0.0
    request_s: float = 0.0
    engine_step_s: float = 0.0
    engine_layer_s: float = 0.0
    engine_row_s: float = 0.0
    sync_s: float = 0.0
    sync_weight_s: float = 0.0
    grade_s: float = 0.0
    grade_row_s: float = 0.0
    rows_s: float = 0.0
    rows_row_s: float = 0.0


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
        products: by number format, of products of growing size the multiplications and additions (2·m·k·n) and how many
            a second were measured; what `flops` is not reached by. Empty: nobody has measured them.
        overheads: of calls.
        sharing: by ranks that are at work on a node at once, how many times as long each takes; ascending.
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
    products: Mapping[DType, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    overheads: Overheads = Overheads()
    sharing: Mapping[int, float] = field(default_factory=dict)
