"""Roles as settings place them: which are started, on which pool of how many slots, with which sizes and methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm
from typing import cast

from hybridflow.config import pool_sizes
from hybridflow.config.model_roles import BY_MODEL, has_model, section
from hybridflow.config.schema import ActorConfig, Config, Device, ParallelConfig
from hybridflow.placement.placement_specs import GRADER, Engines
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


def started_roles(config: Config, called: Sequence[str]) -> tuple[str, ...]:
    """Return the roles to start: the algorithm's, `rollout` if it is apart, and a grader if none of these is one."""
    rollout = ("rollout",) if "actor" in called and is_disaggregated(config) else ()
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


def pool_name(config: Config, role: str) -> str:
    """Return the pool that a role is given, else the first. The grader goes where the reward does."""
    named = config.placement.roles.get("reward" if role == GRADER else role)
    return named or next(iter(config.placement.pools), "")


def is_disaggregated(config: Config) -> bool:
    """Tell whether generation has a pool of its own, away from the actor's processes."""
    pool = config.placement.roles.get("rollout")
    return pool is not None and pool != pool_name(config, "actor")


def generates(config: Config, role: str) -> bool:
    """Tell whether the actor's processes generate: all of it, or while their slots are lent."""
    return role == "actor" and (config.placement.lend_idle_slots or not is_disaggregated(config))


def slots_of_pools(config: Config, started: Sequence[str], gpus: int | None, cpus: int | None) -> dict[str, int]:
    """Return the slots of each pool; of one with what others leave 0, if that is nothing.

    As long as nobody knows what the cluster has, that one is as small as its roles allow.
    """
    sizes = {name: pool_sizes.size_of(size).slots for name, size in config.placement.pools.items()}
    used = {pool_name(config, role) for role in started}
    given = {name: slots for name, slots in sizes.items() if slots is not None and name in used}
    slots = {}
    for name, size in sizes.items():
        light = is_light(config, started, name)
        device = Device.cpu if light else model_device(config, gpus)
        has = {Device.auto: None, Device.cpu: cpus, Device.gpu: gpus}[device]
        beside = [pool for pool in given if device is not Device.gpu or not is_light(config, started, pool)]
        least = lcm(*(_ranks(config, role) for role in started if pool_name(config, role) == name))
        slots[name] = size or (least if has is None else max(0, has - sum(given[pool] for pool in beside)))
    return slots


def _ranks(config: Config, role: str) -> int:
    """Return the ranks that a role cannot do without; sizes below 1 are told with the bounds of settings."""
    parallel = parallel_of(config, role)
    return 1 if parallel is None else max(1, parallel.tensor * parallel.pipeline)


def is_light(config: Config, started: Sequence[str], pool: str) -> bool:
    """Tell whether no role of a pool uses torch."""
    return all(interface_of(config, role).light for role in started if pool_name(config, role) == pool)


def parallel_of(config: Config, role: str) -> ParallelConfig | None:
    """Return the sizes of a role with a model; None for others, which use one rank a row."""
    if role == "rollout":
        return config.rollout.parallel
    return section(config, role).parallel if has_model(config, role) else None


def interface_of(config: Config, role: str) -> type[Role]:
    """Return what a role can do: that of reward and cost depends on their worker, the actor's on who generates."""
    if role == GRADER:
        return roles.get("reward")
    if role == "actor" and is_disaggregated(config):
        return LendingActorRole if config.placement.lend_idle_slots else TrainingActorRole
    if role == "reward" and with_reward_model(config.reward):
        return GradedModelRewardRole
    return BY_MODEL_INTERFACES[role] if role in BY_MODEL and has_model(config, role) else roles.get(role)
