"""Everything that keeps roles from being placed as settings have them.

Problems are written as everywhere: `key: what was found; what to do`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hybridflow.config import pool_sizes
from hybridflow.config.schema import Config, Device, Resharding
from hybridflow.errors import counted
from hybridflow.placement.placed_roles import (
    generates,
    interface_of,
    is_light,
    model_device,
    parallel_of,
    pool_name,
    slots_of_pools,
    started_roles,
)
from hybridflow.placement.placement_specs import GRADER
from hybridflow.roles import is_second_policy, roles


def problems(config: Config, called: Sequence[str], gpus: int | None = None, cpus: int | None = None) -> list[str]:
    """List everything that keeps these roles from being placed; sizes below 1 are left to the bounds of settings.

    Args:
        called: the roles that the algorithm calls; those that nobody registers are skipped.
        gpus, cpus: see `resolve`.
    """
    if missing := list(_missing_pools(config)):
        return missing  # nothing can be said of a layout on a pool that is not there
    if any(pool_sizes.problems(config.placement.pools)):
        return []  # nor on one without a size, which is told with the bounds of settings
    known = [role for role in started_roles(config, called) if role in roles or role == GRADER]
    slots = slots_of_pools(config, known, gpus, cpus)
    return [
        *_nothing_left(config, known, slots),
        *_unfilled_pools(config, known, slots),
        *_nodes(config, known),
        *_generation(config, known),
        *_lending(config, known),
        *_second_generators(config, known, gpus),
        *_missing_gpus(config, known, gpus, slots),
    ]


def _missing_pools(config: Config) -> Iterator[str]:
    pools = config.placement.pools
    if not pools:
        yield "placement.pools: there is no pool; choose placement=colocated or add placement.pools.main=2"
    for role, pool in config.placement.roles.items():
        if pool not in pools:
            yield f"placement.roles.{role}: no pool is named {pool!r}; there is {', '.join(pools) or 'none'}"


def _nothing_left(config: Config, started: Sequence[str], slots: Mapping[str, int]) -> Iterator[str]:
    for name in {pool_name(config, role): None for role in started}:
        if not slots[name]:
            kind = "CPUs" if is_light(config, started, name) else "devices"
            yield (
                f"placement.pools.{name}: auto given, but other pools take all {kind} that there are; give them less"
            )


def _nodes(config: Config, started: Sequence[str]) -> Iterator[str]:
    """Yield pools over nodes that there are not, or whose tensor groups would not stay inside of a node."""
    for name in {pool_name(config, role): None for role in started}:
        size = pool_sizes.size_of(config.placement.pools[name])
        if size.slots is None or size.nodes is None or size.nodes == 1:
            continue
        if config.ray.address == "local":
            yield (
                f"placement.pools.{name}.nodes: {size.nodes} given, but ray.address=local is this machine alone; "
                "join a cluster (docs/cluster.md), or give the slots as one number"
            )
        each = size.slots // size.nodes
        for role in (role for role in started if pool_name(config, role) == name):
            parallel = parallel_of(config, role)
            if parallel is not None and parallel.tensor > 0 and each % parallel.tensor:
                yield (
                    f"{role}.parallel.tensor: a tensor group of {parallel.tensor} ranks stays inside of a node, and "
                    f"pool {name} has {counted(each, 'slot')} on each; change one of them"
                )
                break


def _unfilled_pools(config: Config, started: Sequence[str], by_pool: Mapping[str, int]) -> Iterator[str]:
    """Yield roles whose ranks do not divide the slots of their pool; of those sharded alike on one pool, the first."""
    reported = set()
    for role in started:
        parallel = parallel_of(config, role)
        pool = pool_name(config, role)
        if parallel is None or (pool, parallel.tensor, parallel.pipeline) in reported:
            continue
        reported.add((pool, parallel.tensor, parallel.pipeline))
        ranks = parallel.tensor * parallel.pipeline
        slots = by_pool[pool]
        if ranks > 0 and slots % ranks:
            yield (
                f"{role}.parallel: tensor {parallel.tensor} x pipeline {parallel.pipeline} = {ranks} ranks do not "
                f"divide the {slots} slots of pool {pool}; change them or placement.pools.{pool}"
            )


def _generation(config: Config, started: Sequence[str]) -> Iterator[str]:
    """Check that generation shards no finer than training, in sizes that divide (HybridFlow, section 5.3)."""
    if "rollout" in started and config.rollout.resharding is not Resharding.hybrid:
        yield (
            f"rollout.resharding: {config.rollout.resharding.value} gathers in the actor's processes, but "
            "placement.roles.rollout gives generation a pool of its own; leave one of them out"
        )
    if "actor" not in started or not generates(config, "actor"):
        return
    for axis in ("tensor", "pipeline"):
        whole = getattr(config.actor.parallel, axis)
        part = getattr(config.rollout.parallel, axis)
        if part > 0 and whole % part:
            yield f"rollout.parallel.{axis}: {part} does not divide actor.parallel.{axis} = {whole}"


def _lending(config: Config, started: Sequence[str]) -> Iterator[str]:
    if config.placement.lend_idle_slots and "rollout" not in started:
        yield (
            "placement.lend_idle_slots: true given, but generation has no pool of its own that slots could be lent to; "
            "take placement=rollout_pool, or leave it out"
        )


def _second_generators(config: Config, started: Sequence[str], gpus: int | None) -> Iterator[str]:
    """Refuse a second policy in the processes of another on GPUs: vLLM's memory pool wants to be alone in its."""
    if config.rollout.engine != "vllm" or model_device(config, gpus) is not Device.gpu:
        return
    by_pool: dict[str, str] = {}
    for role in started:
        if role != "rollout" and not is_second_policy(role) and not generates(config, role):
            continue
        pool = pool_name(config, role)
        if by_pool.setdefault(pool, role) != role:
            yield (
                f"placement.roles.{role}: {role} generates on pool {pool}, as {by_pool[pool]} does, and a process on a "
                f"GPU can have one vLLM; give it a pool of its own: +placement.pools.{role}=1 "
                f"placement.roles.{role}={role}"
            )


def _missing_gpus(
    config: Config, started: Sequence[str], gpus: int | None, by_pool: Mapping[str, int]
) -> Iterator[str]:
    """Refuse more slots with models than GPUs: they would else run on CPUs, and nobody would know."""
    if gpus is None or model_device(config, gpus) is Device.cpu:
        return
    pools = dict.fromkeys(pool_name(config, role) for role in started if not interface_of(config, role).light)
    slots = {name: by_pool[name] for name in pools}
    total = sum(slots.values())
    if total <= gpus:
        return
    if not gpus:
        yield "placement.device: gpu given, but there is no GPU; set it to auto, or to cpu"
        return
    key = f"placement.pools.{next(iter(slots))}" if len(slots) == 1 else "placement.pools"
    which = "" if len(slots) == 1 else f" ({', '.join(f'{name} {count}' for name, count in slots.items())})"
    yield (
        f"{key}: {total} slots for models{which}, each of which takes a GPU, but there {_are(gpus)}; give fewer slots, "
        "or placement.device=cpu to run on CPUs"
    )


def _are(gpus: int) -> str:
    return "is 1" if gpus == 1 else f"are {gpus}"
