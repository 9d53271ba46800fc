"""Estimate of the host memory that a run on CPUs takes, compared with what this machine has left."""

from __future__ import annotations

from math import prod

from hybridflow.config.model_roles import section
from hybridflow.config.schema import Config, Device, DType
from hybridflow.models import Head, read_shape, table
from hybridflow.observe.host_memory import LESS, HostMemory
from hybridflow.placement import Placement, RoleSpec

PROCESS_BYTES = 0.8 * 2**30  # of a rank with both engines; `benchmarks.process_bytes` finds 0.7 beside its models
LIGHT_BYTES = 0.2 * 2**30  # of one without torch
OF_UPDATES = 12  # beside each weight: a gradient and two moments in float32; with bfloat16 a float32 weight too


def warning(config: Config, placed: Placement, memory: HostMemory | None) -> str:
    """Tell of a run that will not fit into what this machine has left, as far as sizes say; "": it does."""
    if memory is None or config.ray.address != "local":
        return ""
    models = sum(_bytes_of(config, placed, role) for role in placed.roles)
    processes = sum(pool.slots * (LIGHT_BYTES if pool.light else PROCESS_BYTES) for pool in placed.pools)
    needed = models + processes
    if needed <= memory.left:
        return ""
    parts = f"{models / 2**30:.1f} for models, their updates and caches, {processes / 2**30:.1f} for processes"
    return (
        f"warning: this run takes about {needed / 2**30:.1f} GiB of this machine's memory ({parts}), and {memory} are "
        f"left: a process of it may be ended. {LESS}"
    )


def _bytes_of(config: Config, placed: Placement, role: RoleSpec) -> float:
    """Return the bytes that a role's model takes on all of its ranks together, where these are CPUs."""
    has_model = role.engines.training or role.engines.generation
    if not has_model or placed.pool_of(role.name).device is Device.gpu:
        return 0
    own = section(config, "actor" if role.name == "rollout" else role.name)
    shape = read_shape(own.model.path)
    weights = sum(prod(weight.shape) for weight in table(shape, head=Head.lm) if not weight.is_tied_copy)
    width = 4 if own.model.dtype is DType.float32 else 2
    size = 0.0
    if role.name != "rollout":
        optimizer = getattr(own, "optimizer", None)
        updates = OF_UPDATES + (0 if width == 4 else 4) if optimizer is not None and role.updates else 0
        size += role.layout.data * weights * (width + updates)
    generates_elsewhere = role.name == "actor" and placed.is_disaggregated and not placed.lends
    if role.engines.generation and not generates_elsewhere:
        size += role.layout.replicas * (weights * width + config.rollout.kv_cache_gib * 2**30)
    return size
