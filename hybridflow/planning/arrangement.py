"""Arrangement: which role is on how many devices, and how it is cut there. What costs are asked of; no settings.

A `Placement` says more, as the worker and the interface of a role, since a run is started from it; a search looks at
many arrangements, and makes settings of the one that it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybridflow.parallel.layout import Layout
from hybridflow.placement import Placement


@dataclass(frozen=True)
class Seat:
    """Place of a role: its pool, and its layout there, which says for a policy how it generates."""

    pool: str
    layout: Layout


@dataclass(frozen=True)
class Arrangement:
    """Pools that do not overlap, and who sits on them.

    Attributes:
        pools: devices, by name.
        seats: by role; with `rollout` where generation has a pool of its own.
        lends: the actor's slots generate while they have nothing else to do.
    """

    pools: Mapping[str, int]
    seats: Mapping[str, Seat]
    lends: bool = False

    @property
    def generator(self) -> str:
        """Return the role whose ranks generate."""
        return "rollout" if "rollout" in self.seats else "actor"

    def on(self, pool: str) -> tuple[str, ...]:
        """Return the roles on a pool."""
        return tuple(role for role, seat in self.seats.items() if seat.pool == pool)


def arrangement_of(placement: Placement) -> Arrangement:
    """Take what costs need to know of a placement."""
    pools = {pool.name: pool.slots for pool in placement.pools}
    seats = {role.name: Seat(role.pool, role.layout) for role in placement.roles}
    return Arrangement(pools, seats, placement.lends)
