"""From settings to a placement, or to everything that keeps them from being one.

Problems are written as everywhere: `key: what was found; what to do`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import lcm
from types import MappingProxyType
from typing import cast

from hybridflow.config import pool_sizes
from hybridflow.config.model_roles import BY_MODEL, has_model, names, section
from hybridflow.config.schema import ActorConfig, Config, Device, ParallelConfig, Resharding
from hybridflow.errors import ConfigError, counted
from hybridflow.parallel.layout import Layout
from hybridflow.placement.node_bundles import slots_together
from hybridflow.placement.placement_specs import GRADER, Engines, Placement, PoolSpec, RoleSpec
from hybridflow.roles import (
    GradedModelRewardRole,
    ModelCostRole,
    ModelRewardRole,
    Role,
    is_policy,
    is_second_policy,
    roles,
)
from hybridflow.roles.rollout import LendingActorRole, TrainingActorRole
from hybridflow.tasks.chosen_graders import with_reward_model

BY_MODEL_INTERFACES: dict[str, type[Role]] = {"reward": ModelRewardRole, "cost": ModelCostRole}


def resolve(
    config: Config,
    called: Sequence[str],
    *,
    gpus: int | None = None,
    cpus: int | None = None,
    updates: Mapping[str, int] = MappingProxyType({}),
) -> Placement:
    """Place the roles that an algorithm calls, and those that serve it.

    Args:
        called: their names, in the order in which they are started.
        gpus: how many the cluster has; None: that is not known yet, and each pool's device is as the settings say.
        cpus: how many it has; None: that is not known yet, and a pool with what others leave is as small as may be.
        updates: by role, the optimizer steps that the run plans; 1 for those that are not named.

    Raises:
        ConfigError: everything that `problems` finds.
        KeyError: nobody registers a role of that name.
    """
    if wrong := problems(config, called, gpus, cpus):
        raise ConfigError("\n".join(wrong))
    started = started_roles(config, called)
    slots = _slots(config, started, gpus, cpus)
    placed = tuple(_role(config, role, slots, updates.get(role, 1)) for role in started)
    pools = dict.fromkeys(role.pool for role in placed)
    return Placement(tuple(_pool(config, name, slots[name], placed, gpus) for name in pools), placed)


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
    slots = _slots(config, known, gpus, cpus)
    return [
        *_nothing_left(config, known, slots),
        *_unfilled_pools(config, known, slots),
        *_nodes(config, known),
        *_generation(config, known),
        *_lending(config, known),
        *_second_generators(config, known, gpus),
        *_missing_gpus(config, known, gpus, slots),
    ]


def started_roles(config: Config, called: Sequence[str]) -> tuple[str, ...]:
    """Return the roles to start: the algorithm's, `rollout` if it is apart, and a grader if none of these is one."""
    rollout = ("rollout",) if "actor" in called and _is_disaggregated(config) else ()
    graded = "reward" in called and not has_model(config, "reward")
    return (*called, *rollout, *(() if graded else (GRADER,)))


def engines_of(config: Config, role: str) -> Engines:
    """Return the engines of a role's model, as the settings name them; none for a role without settings of a model.

    A policy, be it the actor or one of the user's, generates by `rollout.engine`.
    """
    if role == "rollout":
        return Engines(config.actor.engine, config.rollout.engine)
    if not has_model(config, role):
        return Engines()
    own = section(config, role).engine
    return Engines(own, config.rollout.engine) if is_policy(role) else Engines(own)


def settings_of_worker(config: Config, role: str) -> Config:
    """Return the settings as the worker of a role sees them.

    Where they have the actor's section a policy beside the actor finds its own, so that the same worker serves both.
    """
    if not (is_second_policy(role) and has_model(config, role)):
        return config
    return replace(config, actor=cast(ActorConfig, section(config, role)))


def model_device(config: Config, gpus: int | None) -> Device:
    """Return what a slot with models is; `auto` if that depends on GPUs that nobody has counted yet."""
    if config.placement.device is not Device.auto or gpus is None:
        return config.placement.device
    return Device.gpu if gpus else Device.cpu


def _pool_name(config: Config, role: str) -> str:
    """Return the pool that a role is given, else the first. The grader goes where the reward does."""
    named = config.placement.roles.get("reward" if role == GRADER else role)
    return named or next(iter(config.placement.pools), "")


def _is_disaggregated(config: Config) -> bool:
    """Tell whether generation has a pool of its own, away from the actor's processes."""
    pool = config.placement.roles.get("rollout")
    return pool is not None and pool != _pool_name(config, "actor")


def _generates(config: Config, role: str) -> bool:
    """Tell whether the actor's processes generate: all of it, or while their slots are lent."""
    return role == "actor" and (config.placement.lend_idle_slots or not _is_disaggregated(config))


def _slots(config: Config, started: Sequence[str], gpus: int | None, cpus: int | None) -> dict[str, int]:
    """Return the slots of each pool; of one with what others leave 0, if that is nothing.

    As long as nobody knows what the cluster has, that one is as small as its roles allow.
    """
    sizes = {name: pool_sizes.size_of(size).slots for name, size in config.placement.pools.items()}
    used = {_pool_name(config, role) for role in started}
    given = {name: slots for name, slots in sizes.items() if slots is not None and name in used}
    slots = {}
    for name, size in sizes.items():
        light = _light(config, started, name)
        device = Device.cpu if light else model_device(config, gpus)
        has = {Device.auto: None, Device.cpu: cpus, Device.gpu: gpus}[device]
        beside = [pool for pool in given if device is not Device.gpu or not _light(config, started, pool)]
        least = lcm(*(_ranks(config, role) for role in started if _pool_name(config, role) == name))
        slots[name] = size or (least if has is None else max(0, has - sum(given[pool] for pool in beside)))
    return slots


def _ranks(config: Config, role: str) -> int:
    """Return the ranks that a role cannot do without; sizes below 1 are told with the bounds of settings."""
    parallel = _parallel(config, role)
    return 1 if parallel is None else max(1, parallel.tensor * parallel.pipeline)


def _light(config: Config, started: Sequence[str], pool: str) -> bool:
    """Tell whether no role of a pool uses torch."""
    return all(_interface(config, role).light for role in started if _pool_name(config, role) == pool)


def _role(config: Config, role: str, slots: Mapping[str, int], updates: int) -> RoleSpec:
    pool = _pool_name(config, role)
    return RoleSpec(
        role,
        pool,
        _layout(config, role, slots[pool]),
        _interface(config, role),
        _worker(config, role),
        engines_of(config, role),
        updates,
    )


def _parallel(config: Config, role: str) -> ParallelConfig | None:
    """Return the sizes of a role with a model; None for others, which use one rank a row."""
    if role == "rollout":
        return config.rollout.parallel
    return section(config, role).parallel if has_model(config, role) else None


def _layout(config: Config, role: str, slots: int) -> Layout:
    """Return a role's own tensor and pipeline sizes, and data parallelism over the slots that are left."""
    parallel = _parallel(config, role)
    generation = config.rollout.parallel
    if parallel is None:
        return Layout(data=slots)
    data = slots // (parallel.tensor * parallel.pipeline)
    if not _generates(config, role):
        return Layout(parallel.tensor, parallel.pipeline, data)
    return Layout(
        parallel.tensor,
        parallel.pipeline,
        data,
        generation=(generation.tensor, generation.pipeline),
        nested=config.rollout.resharding is not Resharding.hybrid_v,
    )


def _interface(config: Config, role: str) -> type[Role]:
    """Return what a role can do: that of reward and cost depends on their worker, the actor's on who generates."""
    if role == GRADER:
        return roles.get("reward")
    if role == "actor" and _is_disaggregated(config):
        return LendingActorRole if config.placement.lend_idle_slots else TrainingActorRole
    if role == "reward" and with_reward_model(config.reward):
        return GradedModelRewardRole
    return BY_MODEL_INTERFACES[role] if role in BY_MODEL and has_model(config, role) else roles.get(role)


def _worker(config: Config, role: str) -> str:
    """Return the registered name of the worker: the settings', else the role's own."""
    if role == GRADER:
        return "reward"
    named = section(config, role).worker if role in names(config) else role
    if role == "reward" and with_reward_model(config.reward):
        return "graded_model"
    if (role, named) == ("actor", "actor") and _is_disaggregated(config):
        return "lending_actor" if config.placement.lend_idle_slots else "training_actor"
    return named


def _pool(config: Config, name: str, slots: int, placed: Sequence[RoleSpec], gpus: int | None) -> PoolSpec:
    here = [role for role in placed if role.pool == name]
    light = all(role.interface.light for role in here)
    device = Device.cpu if light else model_device(config, gpus)
    nodes = pool_sizes.size_of(config.placement.pools[name]).nodes
    return PoolSpec(name, slots, device, light, nodes, slots_together(role.layout for role in here))


def _missing_pools(config: Config) -> Iterator[str]:
    pools = config.placement.pools
    if not pools:
        yield "placement.pools: there is no pool; choose placement=colocated or add placement.pools.main=2"
    for role, pool in config.placement.roles.items():
        if pool not in pools:
            yield f"placement.roles.{role}: no pool is named {pool!r}; there is {', '.join(pools) or 'none'}"


def _nothing_left(config: Config, started: Sequence[str], slots: Mapping[str, int]) -> Iterator[str]:
    for name in {_pool_name(config, role): None for role in started}:
        if not slots[name]:
            kind = "CPUs" if _light(config, started, name) else "devices"
            yield (
                f"placement.pools.{name}: auto given, but other pools take all {kind} that there are; give them less"
            )


def _nodes(config: Config, started: Sequence[str]) -> Iterator[str]:
    """Yield pools over nodes that there are not, or whose tensor groups would not stay inside of a node."""
    for name in {_pool_name(config, role): None for role in started}:
        size = pool_sizes.size_of(config.placement.pools[name])
        if size.slots is None or size.nodes is None or size.nodes == 1:
            continue
        if config.ray.address == "local":
            yield (
                f"placement.pools.{name}.nodes: {size.nodes} given, but ray.address=local is this machine alone; "
                "join a cluster (docs/cluster.md), or give the slots as one number"
            )
        each = size.slots // size.nodes
        for role in (role for role in started if _pool_name(config, role) == name):
            parallel = _parallel(config, role)
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
        parallel = _parallel(config, role)
        pool = _pool_name(config, role)
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
    if "actor" not in started or not _generates(config, "actor"):
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
        if role != "rollout" and not is_second_policy(role) and not _generates(config, role):
            continue
        pool = _pool_name(config, role)
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
    pools = dict.fromkeys(_pool_name(config, role) for role in started if not _interface(config, role).light)
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
