"""Seconds of a weight sync: the bytes that a rank must get from others over its link, and what it does with all it has.

In the actor's own processes these are the paper's (HybridFlow, table 2): (t·p - t_g·p_g) / (t_g·p_g·t·p) of the model a
rank where generation's shard contains training's. On a pool of its own each rank gets all of its shard; the training
ranks share the sending out.
"""

from __future__ import annotations

from math import ceil

from hybridflow.parallel.layout import Layout
from hybridflow.planning import model_arithmetic as arithmetic
from hybridflow.planning.collectives import send_s
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import RoleModel


def sync_seconds(hardware: Hardware, model: RoleModel, training: Layout, generation: Layout | None) -> float:
    """Return the seconds of a sync.

    Args:
        generation: the layout of the pool that generates; None: the training ranks do, as their layout says.
    """
    size = arithmetic.parameters(model) * arithmetic.BYTES[model.dtype]
    per_node = hardware.devices_per_node
    if generation is None:
        tensor, pipeline = training.generation_sizes
        shard = size / (tensor * pipeline)
        whole = training.tensor * training.pipeline
        moved = shard * (whole - tensor * pipeline) / whole if training.nested else size * (whole - 1) / whole
        across = whole > per_node
    else:
        tensor, pipeline = generation.generation_sizes
        shard = size / (tensor * pipeline)
        moved = max(shard, shard * generation.size / training.size)
        across = training.size + generation.size > per_node
    sent = float(send_s(hardware, across=across, size=moved)) if moved else 0.0
    return sent + shard * hardware.overheads.sync_byte + hardware.overheads.sync


def sync_ranks(training: Layout, generation: Layout | None) -> int:
    """Return the ranks at work in a sync."""
    return training.size if generation is None else ceil((training.size + generation.size) / 2)
