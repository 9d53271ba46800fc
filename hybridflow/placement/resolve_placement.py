"""From settings to a placement, or to everything that keeps them from being one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hybridflow.config import pool_sizes
from hybridflow.config.model_roles import names, section
from hybridflow.config.schema import Config, Device, Resharding
from hybridflow.errors import ConfigError
from hybridflow.parallel.layout import Layout
from hybridflow.placement.node_bundles import slots_together
from hybridflow.placement.placed_roles import (
    engines_of,
    generates,
    interface_of,
    is_disaggregated,
    model_device,
    parallel_of,
    pool_name,
    slots_of_pools,
    started_roles,
)
from hybridflow.placement.placement_problems import problems
from hybridflow.placement.placement_specs import GRADER, Placement, PoolSpec, RoleSpec
from hybridflow.tasks.chosen_graders import with_reward_model


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
    slots = slots_of_pools(config, started, gpus, cpus)
    placed = tuple(_role(config, role, slots, updates.get(role, 1)) for role in started)
    pools = dict.fromkeys(role.pool for role in placed)
    return Placement(tuple(_pool(config, name, slots[name], placed, gpus) for name in pools), placed)


def _role(config: Config, role: str, slots: Mapping[str, int], updates: int) -> RoleSpec:
    pool = pool_name(config, role)
    return RoleSpec(
        role,
        pool,
        _layout(config, role, slots[pool]),
        interface_of(config, role),
        _worker(config, role),
        engines_of(config, role),
        updates,
    )


def _layout(config: Config, role: str, slots: int) -> Layout:
    """Return a role's own tensor and pipeline sizes, and data parallelism over the slots that are left."""
    parallel = parallel_of(config, role)
    generation = config.rollout.parallel
    if parallel is None:
        return Layout(data=slots)
    data = slots // (parallel.tensor * parallel.pipeline)
    if not generates(config, role):
        return Layout(parallel.tensor, parallel.pipeline, data)
    return Layout(
        parallel.tensor,
        parallel.pipeline,
        data,
        generation=(generation.tensor, generation.pipeline),
        nested=config.rollout.resharding is not Resharding.hybrid_v,
    )


def _worker(config: Config, role: str) -> str:
    """Return the registered name of the worker: the settings', else the role's own."""
    if role == GRADER:
        return "reward"
    named = section(config, role).worker if role in names(config) else role
    if role == "reward" and with_reward_model(config.reward):
        return "graded_model"
    if (role, named) == ("actor", "actor") and is_disaggregated(config):
        return "lending_actor" if config.placement.lend_idle_slots else "training_actor"
    return named


def _pool(config: Config, name: str, slots: int, placed: Sequence[RoleSpec], gpus: int | None) -> PoolSpec:
    here = [role for role in placed if role.pool == name]
    light = all(role.interface.light for role in here)
    device = Device.cpu if light else model_device(config, gpus)
    nodes = pool_sizes.size_of(config.placement.pools[name]).nodes
    return PoolSpec(name, slots, device, light, nodes, slots_together(role.layout for role in here))
