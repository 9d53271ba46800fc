"""Slots: places of the cluster that a pool has reserved, as a placement group of Ray's. A bundle is on one node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from hybridflow import interrupt
from hybridflow.controller import cluster_nodes, ray_services
from hybridflow.controller.deadlines import SAY_AFTER_S
from hybridflow.errors import ClusterError, HybridFlowError
from hybridflow.placement.node_bundles import Bundles

log = logging.getLogger(__name__)

PAUSE_S = 0.5
WHOLE_SECONDS = 1  # Ray 2.60 drops a fraction; of 0 s it says, more often than not, that what is there is not there
TAKEN_NOTE_S = 90.0  # in which Ray has marked a lost node as dead; one that it still has by then has come back


class Slots:
    """Slots of a pool.

    Args:
        bundles: how many, and which of them are on one node.
        slot: what each slot has to itself.
        within_s: that it may take until they are free.
        nodes_within_s: that it may take until there are nodes that could hold them, if everybody else left.

    Attributes:
        group: Ray's handle.

    Raises HybridFlowError if the cluster has no room for them.
    """

    def __init__(
        self, pool: str, bundles: Bundles, slot: dict[str, float], within_s: float, nodes_within_s: float
    ) -> None:
        self._key = f"placement.pools.{pool}"
        self._bundles = bundles
        self._slot = slot
        self._within_s = within_s
        self._whole = {kind: amount * bundles.slots for kind, amount in slot.items()}
        strategy = "STRICT_SPREAD" if bundles.apart else "PACK"
        self._name = f"{cluster_nodes.pool_name(pool)}-{uuid4().hex[:8]}"
        self.group: Any = placement_group([self._whole] * bundles.count, strategy=strategy, name=self._name)
        try:
            self._reserve(nodes_within_s)
        except BaseException:
            self.release()
            raise

    @property
    def nodes(self) -> list[str]:
        """Node of each bundle."""
        by_bundle = placement_group_table(self.group)["bundles_to_node_id"]
        return [by_bundle[bundle] for bundle in range(self._bundles.count)]

    def replace_lost(self, nodes: Mapping[str, str]) -> None:
        """Wait until all are there, none of them on one of these nodes, which are lost.

        Ray finds others for them once it has noticed the loss too; a node that joins the cluster meanwhile is used.

        Raises ClusterError if there are no others in time.
        """
        begin = monotonic()

        def there() -> bool:
            table = placement_group_table(self.group)
            noticed = monotonic() > begin + TAKEN_NOTE_S or not set(table["bundles_to_node_id"].values()) & set(nodes)
            return bool(noticed and table["state"] == "CREATED")

        lost = f"node {', '.join(node[:8] for node in nodes) or 'of some slots'} is lost"
        within = f"{self._within_s:g} s (ray.start_timeout_s)"
        said = f"{lost}; waiting for slots on others, or on one that joins, for at most {within}"
        if not self._wait(there, 0.0, lambda: said):
            raise ClusterError(
                f"{self._key}: {lost}, and no other node had room for what was there within {within}: the pool needs "
                f"{self._wanted()}, and there is {_there()}"
            )

    def release(self) -> None:
        """Give them back."""
        remove_placement_group(self.group)

    def _reserve(self, nodes_within_s: float) -> None:
        """Wait until they are free; give up as soon as it is clear that they will never be."""
        begin = monotonic()

        def free() -> bool:
            if self.group.wait(WHOLE_SECONDS):
                return True
            if monotonic() >= begin + min(nodes_within_s, self._within_s):
                self._refuse_impossible()
            return False

        if not self._wait(free, SAY_AFTER_S, lambda: f"still waiting for {self._wanted()}; there is {_there()}"):
            raise HybridFlowError(
                f"{self._key}: {self._wanted()} were not free within {self._within_s:g} s (ray.start_timeout_s); there "
                f"is {_there()}"
            )

    def _refuse_impossible(self) -> None:
        """Raise HybridFlowError if the nodes that there are had no room for them if everybody else left."""
        room = self._bundles.room((node.others for node in cluster_nodes.living_nodes(self._name)), self._slot)
        if missing := self._bundles.count - room:
            where = " on one node" if self._bundles.apart or self._bundles.slots > 1 else ""
            raise HybridFlowError(
                f"{self._key}: {self._wanted()} were asked for, and the nodes that there are can never hold more than "
                f"{room} of {self._bundles.count}; missing: {missing} x {cluster_nodes.in_words(self._whole)}{where}. "
                f"There is {_there()}. Add nodes, or ask for less"
            )

    def _wanted(self) -> str:
        return f"{self._bundles} ({cluster_nodes.in_words(self._slot)} a slot)"

    def _wait(self, ready: Callable[[], bool], say_after_s: float, words: Callable[[], str]) -> bool:
        """Wait until they are ready, and say once what for; tell whether they were in time."""
        begin = monotonic()
        said = False
        while ray_services.lost() or not ready():  # Ray would be silent until it has them back
            interrupt.check()
            ray_services.raise_if_lost()
            now = monotonic()
            if not said and now >= begin + say_after_s and not ray_services.lost():  # which is told by itself
                said = True
                log.warning("%s: %s", self._key, words())
            if now >= begin + self._within_s:
                return False
            sleep(PAUSE_S)
        return True


def _there() -> str:
    return cluster_nodes.described(cluster_nodes.living_nodes())
