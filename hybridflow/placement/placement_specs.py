"""The placement of a run: frozen values that can be compared, printed and realized again."""

from __future__ import annotations

from dataclasses import dataclass, field

from hybridflow.config.schema import Device
from hybridflow.parallel.layout import Layout
from hybridflow.placement.node_bundles import Bundles, bundles_of
from hybridflow.roles import Role
from hybridflow.roles.rollout import LendingActorRole

GRADER = "grader"
"""The role that validates and writes rows out where the algorithm has no grader of its own; no algorithm calls it."""


@dataclass(frozen=True)
class PoolSpec:
    """Slots that are reserved together, one process each.

    Attributes:
        name: its key in `placement.pools`.
        device: what a slot is, a CPU or a GPU; `auto` as long as nobody knows what the cluster has.
        light: none of its roles uses torch, so its slots are CPUs whatever the others are.
        nodes: that its slots are on, as many on each; None: wherever there is room.
        together: slots in a row that are on one node, since the tensor groups of its roles are in them.
    """

    name: str
    slots: int
    device: Device
    light: bool
    nodes: int | None = None
    together: int = 1

    @property
    def bundles(self) -> Bundles:
        """What it asks the cluster for."""
        return bundles_of(self.slots, self.nodes, self.together)


@dataclass(frozen=True)
class Engines:
    """Registered names of the engines that a role's model runs in; empty where it has none of that kind.

    Attributes:
        training: of what scores and trains it.
        generation: of what samples from it.
    """

    training: str = ""
    generation: str = ""


@dataclass(frozen=True)
class RoleSpec:
    """Everything that a pool must know to start a role, and to start it again.

    Attributes:
        pool: the name of its pool.
        interface: the methods that its group shows.
        worker: the registered name of its class on the ranks.
        engines: those of its model. Actor and rollout have the same two: weights go from one to the other.
        updates: optimizer steps of this role that the run plans.
    """

    name: str
    pool: str
    layout: Layout
    interface: type[Role]
    worker: str
    engines: Engines = field(default_factory=Engines)
    updates: int = 1


@dataclass(frozen=True)
class Placement:
    """Who runs where.

    Attributes:
        pools: those that a role is on, in the order in which they are started.
        roles: in the order in which they are started, with those that no algorithm calls (`rollout`, `grader`).
    """

    pools: tuple[PoolSpec, ...]
    roles: tuple[RoleSpec, ...]

    @property
    def is_disaggregated(self) -> bool:
        """Tell whether generation has a pool of its own, away from the actor's processes."""
        return any(role.name == "rollout" for role in self.roles)

    @property
    def lends(self) -> bool:
        """Tell whether the actor's slots generate while it waits, beside generation's own pool."""
        return any(issubclass(role.interface, LendingActorRole) for role in self.roles)

    @property
    def slots(self) -> int:
        """Count the processes of all pools."""
        return sum(pool.slots for pool in self.pools)

    def pool_of(self, role: str) -> PoolSpec:
        """Return the pool that a role is on. Raises KeyError if no role has that name."""
        named = self.role(role).pool
        return next(pool for pool in self.pools if pool.name == named)

    def role(self, name: str) -> RoleSpec:
        """Return the role of that name. Raises KeyError if there is none."""
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(f"no role {name!r} is placed; there is {', '.join(role.name for role in self.roles)}")
