"""Seconds of a weight sync: the bytes that a rank must get from others over its link, and what it does with all it has.

In the actor's own processes these are the paper's (HybridFlow, table 2): (t·p - t_g·p_g) / (t_g·p_g·t·p) of the model a
rank where generation's shard contains training's. On a pool of its own each rank gets all of its shard; the training
ranks share the sending out.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from hybridflow.config.schema import Resharding
from hybridflow.models import ModelShape
from hybridflow.models.weight_table import table
from hybridflow.parallel.layout import Layout
from hybridflow.planning import model_arithmetic as arithmetic
from hybridflow.planning.collectives import send_s
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import RoleModel


def sync_seconds(
    hardware: Hardware,
    model: RoleModel,
    training: Layout,
    generation: Layout | None,
    method: Resharding = Resharding.hybrid,
) -> float:
    """Return the seconds of a sync.

    Args:
        generation: the layout of the pool that generates; None: the training ranks do, as their layout says.
        method: that brings weights from one layout of the training ranks to the other.
    """
    tensor, pipeline = (generation or training).generation_sizes
    shard = arithmetic.parameters(model) * model.number_bytes / (tensor * pipeline)
    moved = moved_bytes(model, training, generation, method)
    ranks = training.tensor * training.pipeline if generation is None else training.size + generation.size
    across = ranks > hardware.devices_per_node
    sent = float(send_s(hardware, across=across, size=moved)) if moved else 0.0
    costs = hardware.overheads
    weights = _weights(model.shape) / pipeline * (2 if moved else 1)
    return sent + shard * costs.sync_byte + weights * costs.sync_weight + costs.sync


@lru_cache(maxsize=64)
def _weights(shape: ModelShape) -> int:
    """Count a model's weights; to list them takes a millisecond, and a search asks for each of its plans."""
    return len(table(shape))


def moved_bytes(
    model: RoleModel, training: Layout, generation: Layout | None, method: Resharding = Resharding.hybrid
) -> float:
    """Return the bytes that a rank gets from others; of two pools those that a rank of the busier one gets or sends."""
    size = arithmetic.parameters(model) * model.number_bytes
    whole = training.tensor * training.pipeline
    tensor, pipeline = (generation or training).generation_sizes
    shard = size / (tensor * pipeline)
    if generation is not None:
        return max(shard, shard * generation.size / training.size)
    if method is not Resharding.hybrid or not training.nested:
        return size * (whole - 1) / whole
    return shard * (whole - tensor * pipeline) / whole


def sync_ranks(training: Layout, generation: Layout | None) -> int:
    """Return the ranks at work in a sync."""
    return training.size if generation is None else ceil((training.size + generation.size) / 2)
