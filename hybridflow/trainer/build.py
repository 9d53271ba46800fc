"""Config → running roles: a pool for each set of slots, a group for each role, the algorithm over them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.config.layout_checks import BY_MODEL, MODEL_ROLES, has_model, is_disaggregated, pool_of, section
from hybridflow.config.schema import Config, Resharding
from hybridflow.controller import Group, ResourcePool, Supervisor, cluster
from hybridflow.models import read_shape
from hybridflow.parallel.layout import Layout, describe
from hybridflow.roles import ModelCostRole, ModelRewardRole, Role, roles
from hybridflow.roles.rollout import TrainingActorRole
from hybridflow.runtime.rank import Rank
from hybridflow.trainer.disaggregated import DisaggregatedActor


@dataclass(frozen=True)
class Running:
    """Roles of a run, ready to be called.

    Attributes:
        groups: by role; and `grader`, which validates and writes rows out: the reward itself where it is a grader.
    """

    algorithm: Algorithm
    groups: dict[str, Group]
    pools: dict[str, ResourcePool]
    supervisor: Supervisor


def layout_of(config: Config, role: str) -> Layout:
    """Return a role's layout: its own tensor and pipeline sizes, data parallelism over the slots that are left.

    Raises ValueError if they do not fill the pool.
    """
    slots = config.placement.pools[pool_of(config, role)]
    parallel = getattr(getattr(config, role, None), "parallel", None)
    if parallel is None or not (role == "rollout" or has_model(config, role)):
        return Layout(data=slots)
    size = parallel.tensor * parallel.pipeline
    if slots % size:
        raise ValueError(f"{role}: {slots} slots cannot be cut into replicas of {size} ranks")
    generation, colocated = config.rollout.parallel, role == "actor" and not is_disaggregated(config)
    return Layout(
        parallel.tensor,
        parallel.pipeline,
        slots // size,
        generation=(generation.tensor, generation.pipeline) if colocated else None,
        nested=not colocated or config.rollout.resharding is not Resharding.hybrid_v,
    )


def interface_of(config: Config, role: str) -> type[Role]:
    """Return what a role can do. That of reward and cost depends on their worker, the actor's on who generates."""
    if role == "actor" and is_disaggregated(config):
        return TrainingActorRole
    by_model: dict[str, type[Role]] = {"reward": ModelRewardRole, "cost": ModelCostRole}
    return by_model[role] if role in BY_MODEL and has_model(config, role) else roles.get(role)


def build(config: Config, stack: ExitStack, say: Callable[[str], None], *, rank_class: type[Rank] = Rank) -> Running:
    """Start everything that the algorithm calls; what is entered on `stack` ends it.

    Args:
        rank_class: what the processes run.

    Raises HybridFlowError if the cluster has no room, RoleError with a rank's traceback if a role cannot be built.
    """
    cls = algorithms.get(config.algorithm.name)
    played = played_roles(config, cls)
    config = with_vocabulary(config, played)
    used = list(dict.fromkeys(pool_of(config, role) for role in (*played, "reward")))
    slots = sum(config.placement.pools[name] for name in used)
    config = with_absolute_paths(config)
    stack.enter_context(cluster(config.ray.address, slots=slots, plugins=config.plugins))
    supervisor = Supervisor()
    say(f"starting {slots} processes on pool {', '.join(used)}")
    pools = {name: _start_pool(config, name, played, supervisor, stack, rank_class) for name in used}
    groups: dict[str, Group] = {}
    for role in played:
        layout = layout_of(config, role)
        say(f"starting {role} on pool {pool_of(config, role)}: {describe(layout)}")
        groups[role] = pools[pool_of(config, role)].start_role(
            role,
            layout,
            worker=worker_of(config, role),
            config=config,
            updates=cls.planned_updates(config.algorithm, role, config.trainer.steps),
            interface=interface_of(config, role),
        )
    if "rollout" in played:
        groups["actor"] = _joined(groups, *(pools[pool_of(config, role)] for role in ("actor", "rollout")))
    judge = pools[pool_of(config, "reward")]
    groups["grader"] = groups["reward"] if _graded(config, played) else _grader(config, judge)
    return Running(cls(config.algorithm, groups, config.run.seed), groups, pools, supervisor)


def with_vocabulary(config: Config, played: tuple[str, ...]) -> Config:
    """Fill in `rollout.vocabulary`: the smallest vocabulary of the models that these roles have.

    Models of one tokenizer may be padded to different sizes, and what is sampled must be a token to all who see it.
    """
    sizes = [read_shape(section(config, role).model.path).vocab for role in played if has_model(config, role)]
    given = [config.rollout.vocabulary] if config.rollout.vocabulary else []
    return replace(config, rollout=replace(config.rollout, vocabulary=min([*given, *sizes], default=0)))


def with_absolute_paths(config: Config) -> Config:
    """Make the model folders absolute paths: a rank may have another working directory."""
    found = deepcopy(config)
    for role in (*MODEL_ROLES, *BY_MODEL):
        model = section(found, role).model
        model.path = os.path.abspath(model.path) if model.path else ""
    return found


def played_roles(config: Config, cls: type[Algorithm]) -> tuple[str, ...]:
    """List the algorithm's roles, and the rollout if the actor does not generate itself."""
    called = cls.roles_of(config.algorithm)
    return (*called, "rollout") if "actor" in called and is_disaggregated(config) else called


def worker_of(config: Config, role: str) -> str | None:
    """Return the registered name of the worker; None: the role's own."""
    if role == "actor" and config.actor.worker == "actor" and is_disaggregated(config):
        return "training_actor"
    found: str | None = getattr(getattr(config, role, None), "worker", None)
    return found


def _joined(groups: dict[str, Group], training: ResourcePool, rollout: ResourcePool) -> Any:
    """Actor and rollout as one role, once their pools have met."""
    actor = DisaggregatedActor(groups["actor"], groups["rollout"])
    actor.connect(training.meeting_point(rollout.places))
    return actor


def _graded(config: Config, played: tuple[str, ...]) -> bool:
    """Tell whether the algorithm's own reward is a grader."""
    return "reward" in played and not has_model(config, "reward")


def _grader(config: Config, pool: ResourcePool) -> Group:
    """Start a grader where the algorithm has none of its own."""
    found: Group = pool.start_role(
        "grader", Layout(data=pool.slots), worker="reward", config=config, interface=roles.get("reward")
    )
    return found


def _start_pool(
    config: Config,
    name: str,
    played: tuple[str, ...],
    supervisor: Supervisor,
    stack: ExitStack,
    rank_class: type[Rank],
) -> ResourcePool:
    light = all(interface_of(config, role).light for role in played if pool_of(config, role) == name)
    pool = ResourcePool(
        name,
        config.placement.pools[name],
        supervisor,
        light=light,
        timeout_s=config.trainer.collective_timeout_s,
        start_timeout_s=config.ray.start_timeout_s,
        plugins=config.plugins,
        rank_class=rank_class,
    )
    stack.callback(pool.close)
    return pool
