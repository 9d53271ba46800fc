"""ResourcePool: a set of slots. One Ray actor a slot hosts every role that is placed there."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hybridflow.config.schema import Config
from hybridflow.controller.group import group_class
from hybridflow.controller.rank import Rank
from hybridflow.controller.supervise import Supervisor
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.roles import Role, roles

START_TIMEOUT_S = 120.0


class ResourcePool:
    """Slots of the cluster, reserved together.

    Example:
        with cluster(slots=4):
            supervisor = Supervisor()
            pool = ResourcePool("main", 4, supervisor)
            scorer = pool.play("scorer", Layout(data=4))

    Args:
        slots: how many; a slot is a GPU where the cluster has GPUs, else a CPU.
        light: no torch in its processes.

    Attributes:
        places: (node id, node address) of each rank.

    Raises HybridFlowError if the cluster has no room for them.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        supervisor: Supervisor,
        *,
        light: bool = True,
        timeout_s: float = 600.0,
        plugins: Sequence[str] = (),
    ) -> None:
        self.name, self.slots, self._supervisor = name, slots, supervisor
        gpu = ray.cluster_resources().get("GPU", 0) >= slots and not light
        self._reserved = _reserve(name, slots, {"CPU": 1.0, "GPU": 1.0} if gpu else {"CPU": 1.0})
        actor = ray.remote(Rank)
        self.ranks = [
            actor.options(
                num_cpus=1,
                num_gpus=1 if gpu else 0,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._reserved, slot),
            ).remote(slot, list(plugins))
            for slot in range(slots)
        ]
        supervisor.guard(self.ranks)
        self.places = self._started()
        if not light:
            self._join(self.places, timeout_s)

    def play(
        self,
        role: str,
        layout: Layout,
        *,
        worker: str | None = None,
        config: Config | None = None,
        updates: int = 1,
        chunk_rows: int | None = None,
        interface: type[Role] | None = None,
    ) -> Any:
        """Build a role on every rank of the pool.

        Args:
            worker: the registered name of its worker class; None: the role's own name.
            updates: optimiser steps of this role that the run plans.
            chunk_rows: at most so many rows in one object of the store; see `put`.
            interface: the methods of the group; None: those of the role of that name.

        Returns:
            A `Group` with the role's methods. Annotate it as the role over references, as in
            `actor: ActorRole[BatchRef] = pool.play("actor", …)`, and a type checker knows them.

        Raises ValueError if the layout does not fill the pool, KeyError for a role or a protocol that does not exist,
        RoleError with a rank's traceback if a build fails.
        """
        if layout.size != self.slots:
            raise ValueError(
                f"role {role!r}: its layout has {layout.size} ranks, pool {self.name!r} has {self.slots} slots"
            )
        interface = interface or roles.get(role)
        made = group_class(interface)  # an unknown protocol is an error here, before the model is built
        calls = [rank.build.remote(role, worker or role, layout, config or Config(), updates) for rank in self.ranks]
        self._supervisor.settle(role, "build", calls)
        gc.collect()
        gc.freeze()  # modules and groups stay for the run: the collector need not look through them during calls
        return made(role, interface, layout, self.ranks, self._supervisor, chunk_rows)

    def close(self) -> None:
        """End its processes and give its slots back."""
        for handle in self.ranks:
            ray.kill(handle)
        remove_placement_group(self._reserved)

    def _started(self) -> list[tuple[str, str]]:
        """(node id, node address) of every rank, once its process has imported the plugins."""
        try:
            return ray.get([rank.place.remote() for rank in self.ranks])
        except ray.exceptions.RayActorError as error:
            self.close()
            lines = str(error).strip().splitlines()
            raise HybridFlowError(
                f"{error}\nplacement.pools.{self.name}: a process did not start: {lines[-1].strip()}"
            ) from None

    def _join(self, places: list[tuple[str, str]], timeout_s: float) -> None:
        nodes, init_method = [node for node, _ in places], meeting_point(self.ranks, places)
        local = [nodes[:rank].count(node) for rank, node in enumerate(nodes)]
        ray.get(
            [
                handle.join.remote(self.slots, local[rank], init_method, timeout_s)
                for rank, handle in enumerate(self.ranks)
            ]
        )


def meeting_point(ranks: Sequence[Any], places: Sequence[tuple[str, str]]) -> str:
    """Where those ranks can meet, as torch.distributed takes it; the first of them is host.

    Args:
        places: (node id, node address) of each.
    """
    if len({node for node, _ in places}) == 1:  # a file, so that nothing listens
        return f"file://{tempfile.gettempdir()}/hybridflow-{uuid4().hex}"
    return f"tcp://{places[0][1]}:{ray.get(ranks[0].free_port.remote())}"


def _reserve(name: str, slots: int, bundle: dict[str, float]) -> Any:
    reserved = placement_group([bundle] * slots, strategy="PACK", name=f"hybridflow-{name}-{uuid4().hex[:8]}")
    if not reserved.wait(START_TIMEOUT_S):
        has = ray.available_resources()
        remove_placement_group(reserved)
        raise HybridFlowError(
            f"placement.pools.{name}: {slots} slots of {bundle} were not free within {START_TIMEOUT_S:.0f} s; "
            f"the cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs free"
        )
    return reserved
