"""Realize a placement: a pool for each set of slots, a group for each role, the algorithm over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.algorithms.schedule import schedules
from hybridflow.config.model_roles import names, section, with_models
from hybridflow.config.schema import Config
from hybridflow.controller import Group, ResourcePool, Supervisor, cluster, cluster_cpus, cluster_gpus
from hybridflow.controller.deadlines import Deadlines
from hybridflow.controller.failure_policy import RaiseFirst, RaiseToRecover
from hybridflow.controller.health import Health
from hybridflow.errors import counted
from hybridflow.models import read_shape
from hybridflow.observe.host_memory import host_memory
from hybridflow.parallel.layout import describe
from hybridflow.placement import GRADER, Placement, PoolSpec, RoleSpec, resolve
from hybridflow.placement.hardware import local_cpus, local_gpus
from hybridflow.planning.host_needs import host_warning
from hybridflow.runtime.rank import Rank
from hybridflow.trainer import node_checks
from hybridflow.trainer.disaggregated import DisaggregatedActor
from hybridflow.trainer.grading_ahead import GradingAhead
from hybridflow.trainer.peak_flops import peak_flops
from hybridflow.workers.worker import scores_its_own_way


@dataclass(frozen=True)
class Running:
    """Roles of a run, ready to be called.

    Attributes:
        groups: by role; and `grader`, which validates and writes rows out: the reward itself where it is a grader.
        placement: what was started; a role or a pool that has to be started again is started from it.
        peak_flops: by role, of one of its devices, where that is known.
        ahead: grades rows while others are generated; None where a schedule does, or nobody could.
    """

    algorithm: Algorithm
    groups: dict[str, Group]
    pools: dict[str, ResourcePool]
    placement: Placement
    supervisor: Supervisor
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    ahead: GradingAhead | None = None

    def processes(self) -> dict[str, list[tuple[str, int]]]:
        """Return by pool the address of each rank's node, and its process id there."""
        return {name: [(place.address, place.pid) for place in pool.places] for name, pool in self.pools.items()}

    def let_pools_meet(self) -> None:
        """Let the pools of actor and rollout meet where these are two; again once one has new processes.

        Raises RoleError if they cannot, or if their plan cannot be made.
        """
        if self.placement.is_disaggregated:
            training, rollout = (self.pools[self.placement.pool_of(role).name] for role in ("actor", "rollout"))
            actor: Any = self.groups["actor"]
            actor.connect(training.meeting_point(rollout.places))


def build(config: Config, stack: ExitStack, say: Callable[[str], None], *, rank_class: type[Rank] = Rank) -> Running:
    """Start everything that the algorithm calls; what is entered on `stack` ends it.

    Args:
        rank_class: what the processes run.

    Raises ConfigError if the cluster has too few GPUs, HybridFlowError if it has no room, RoleError with a rank's
    traceback if a role cannot be built.
    """
    cls = algorithms.get(config.algorithm.name)
    called = cls.roles_of(config.algorithm)
    config = with_absolute_paths(with_vocabulary(config, called))
    local = config.ray.address == "local"
    cpus = local_cpus() if local else None
    slots = resolve(config, called, gpus=local_gpus() if local else None, cpus=cpus).slots
    store_bytes = int(config.ray.object_store_gib * 2**30)
    stack.enter_context(cluster(config.ray.address, slots=slots, plugins=config.plugins, store_bytes=store_bytes))
    updates = {role: cls.planned_updates(config.algorithm, role, config.trainer.steps) for role in called}
    placement = resolve(config, called, gpus=cluster_gpus(), cpus=cpus or cluster_cpus(), updates=updates)
    if line := host_warning(config, placement, host_memory()):
        say(line)
    policy = RaiseToRecover() if config.trainer.max_failures else RaiseFirst()
    supervisor = Supervisor(policy, Health(Deadlines(config.trainer.call_timeout_s, config.trainer.call_timeouts_s)))
    say(f"starting {counted(slots, 'process', 'processes')} on pool {', '.join(pool.name for pool in placement.pools)}")
    # What must be together finds room before what may be anywhere.
    ordered = sorted(placement.pools, key=lambda pool: -pool.bundles.slots)
    started = {pool.name: _start_pool(config, pool, supervisor, stack, rank_class) for pool in ordered}
    for pool in started.values():
        pool.wait_started()
    pools = {pool.name: started[pool.name] for pool in placement.pools}
    if not local:
        node_checks.check(config, placement, pools)
    groups: dict[str, Group] = {}
    for role in placement.roles:
        if role.name != GRADER:
            say(f"starting {role.name} on pool {role.pool}: {describe(role.layout)}")
        groups[role.name] = start_role(config, pools[role.pool], role, wait=False)
    for pool in started.values():
        pool.wait_built()
    if placement.is_disaggregated:
        actor: Any = DisaggregatedActor(groups["actor"], groups["rollout"], lends=placement.lends)
        groups["actor"] = actor
    if GRADER not in groups:
        groups[GRADER] = groups["reward"]
    peaks = peak_flops(config, {role.name: pools[role.pool].devices for role in placement.roles})
    ahead = _grading_ahead(config, groups, placement)
    stand_ins: dict[str, Any] = {"actor": ahead.actor, "reward": ahead.reward} if ahead else {}
    algorithm = cls(config.algorithm, {**groups, **stand_ins}, config.run.seed)
    algorithm.scores_first = scores_its_own_way(config.actor.worker)
    running = Running(algorithm, groups, pools, placement, supervisor, peaks, ahead)
    running.let_pools_meet()
    return running


def _grading_ahead(config: Config, groups: dict[str, Group], placement: Placement) -> GradingAhead | None:
    """Let rows be graded while others are generated, if graders are on ranks that then have nothing else to do.

    A schedule that overlaps generation with learning has more for the driver to do meanwhile than to wait for rows.
    """
    by_graders = "reward" in groups and placement.role("reward").worker == "reward"
    if schedules.get(config.trainer.schedule).overlaps or not by_graders:
        return None
    generating = "rollout" if placement.is_disaggregated else "actor"
    if placement.pool_of("reward") == placement.pool_of(generating) or placement.lends:
        return None
    return GradingAhead(groups["actor"], groups["reward"])


def start_role(config: Config, pool: ResourcePool, role: RoleSpec, *, wait: bool = True) -> Group:
    """Build a role on its pool, at the start of a run or when its processes have been replaced.

    Args:
        wait: until it is built; False: the pool's `wait_built` will.

    Raises RoleError with a rank's traceback if that fails.
    """
    group: Group = pool.start_role(
        role.name,
        role.layout,
        worker=role.worker,
        config=config,
        updates=role.updates,
        engines=role.engines,
        interface=role.interface,
        wait=wait,
    )
    return group


def with_vocabulary(config: Config, called: tuple[str, ...]) -> Config:
    """Fill in `rollout.vocabulary`: the smallest vocabulary of the models that these roles have.

    Models of one tokenizer may be padded to different sizes, and what is sampled must be a token to all who see it.
    """
    sizes = [read_shape(section(config, role).model.path).vocab for role in with_models(config, called)]
    own_limit = [config.rollout.vocabulary] if config.rollout.vocabulary else []
    return replace(config, rollout=replace(config.rollout, vocabulary=min([*own_limit, *sizes], default=0)))


def with_absolute_paths(config: Config) -> Config:
    """Return the same settings with absolute paths of model folders: a rank may have another working directory."""
    copied = deepcopy(config)
    for role in names(copied):
        model = section(copied, role).model
        model.path = os.path.abspath(model.path) if model.path else ""
    return copied


def _start_pool(
    config: Config, pool: PoolSpec, supervisor: Supervisor, stack: ExitStack, rank_class: type[Rank]
) -> ResourcePool:
    started = ResourcePool(
        pool.name,
        pool.slots,
        supervisor,
        nodes=pool.nodes,
        together=pool.together,
        light=pool.light,
        device=pool.device,
        timeout_s=config.trainer.collective_timeout_s,
        start_timeout_s=config.ray.start_timeout_s,
        nodes_timeout_s=0.0 if config.ray.address == "local" else config.ray.nodes_timeout_s,  # none will join it
        plugins=config.plugins,
        rank_class=rank_class,
        wait=False,
    )
    stack.callback(started.close)
    return started
