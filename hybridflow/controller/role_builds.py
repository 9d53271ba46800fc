"""RoleBuilds: roles that are being built on a pool's ranks, and those that were, which new ranks are given again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from hybridflow.config.schema import Config
from hybridflow.controller.call_record import CallRecord
from hybridflow.controller.failure_policy import RankSource
from hybridflow.controller.supervisor import Supervisor, name_of
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Engines
from hybridflow.placement.node_bundles import split_groups
from hybridflow.runtime.messages import Place

log = logging.getLogger(__name__)


class RoleBuild(NamedTuple):
    """What a rank is told of a role, in the order in which its `build` takes it."""

    role: str
    worker: str
    layout: Layout
    config: Config
    updates: int
    engines: Engines


class RoleBuilds:
    """Builds of a pool's roles.

    Args:
        within_s: that a build may take.
    """

    def __init__(self, pool: RankSource, supervisor: Supervisor, within_s: float) -> None:
        self._pool = pool
        self._supervisor = supervisor
        self._within_s = within_s
        self._under_way: list[tuple[CallRecord, float]] = []
        self._built: list[RoleBuild] = []

    def begin(self, build: RoleBuild) -> None:
        """Begin to build a role on every rank."""
        calls = [rank.build.remote(*build) for rank in self._pool.ranks]
        record = self._supervisor.ask(build.role, "build", calls, self._within_s, self._pool)
        self._under_way.append((record, monotonic()))

    def finish(self, ready: float) -> float:
        """Wait for those under way; return the seconds that they took, each since ranks were `ready` for it.

        Raises RoleError with a rank's traceback if one fails.
        """
        took = 0.0
        for record, begun in self._under_way:
            self._supervisor.values(record)
            seconds = monotonic() - max(begun, ready)
            ready = monotonic()
            took += seconds
            ranks = len(self._pool.ranks)
            log.info("%s: built on %d ranks of pool %s in %.2f s", record.role, ranks, name_of(self._pool), seconds)
        self._under_way.clear()
        return took

    def keep(self, build: RoleBuild) -> None:
        """Build it again on new ranks."""
        self._built.append(build)

    def forget_begun(self) -> None:
        """Forget those under way: their ranks have ended."""
        self._under_way.clear()

    def begin_again(self) -> None:
        """Begin to build on new ranks all that was built on those before."""
        for build in self._built:
            self.begin(build)


def refuse_layout(role: str, layout: Layout, pool: str, slots: int, places: Sequence[Place]) -> None:
    """Raise ValueError if a layout does not fill a pool, or has a tensor group on several nodes."""
    if layout.size != slots:
        raise ValueError(f"role {role!r}: its layout has {layout.size} ranks, pool {pool!r} has {slots} slots")
    if split := split_groups(layout, [place.node for place in places]):
        where = ", ".join(f"rank {rank} on {places[rank].address}" for rank in split[0])
        raise ValueError(
            f"role {role!r}: a tensor group is on several nodes ({where}); start pool {pool!r} with "
            f"together={layout.tensor}"
        )
