"""Slots: places of the cluster that a pool has reserved, as a placement group of Ray's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from hybridflow import interrupt
from hybridflow.controller import ray_services
from hybridflow.controller.call_reports import LOOK_UP_S
from hybridflow.controller.deadlines import SAY_AFTER_S
from hybridflow.errors import ClusterError, HybridFlowError, counted

log = logging.getLogger(__name__)

PAUSE_S = 0.5
TAKEN_NOTE_S = 90.0  # in which Ray has marked a lost node as dead; one that it still has by then has come back


class Slots:
    """Slots of a pool.

    Args:
        bundle: what each slot has to itself.
        within_s: that it may take until they are free.

    Attributes:
        group: Ray's handle.

    Raises HybridFlowError if the cluster has no room for them.
    """

    def __init__(self, pool: str, count: int, bundle: dict[str, float], within_s: float) -> None:
        self._key = f"placement.pools.{pool}"
        self._count = count
        self._bundle = bundle
        self._within_s = within_s
        name = f"hybridflow-{pool}-{uuid4().hex[:8]}"
        self.group: Any = placement_group([bundle] * count, strategy="PACK", name=name)
        if not self._wait(lambda: bool(self.group.wait(min(LOOK_UP_S, within_s))), SAY_AFTER_S, self._not_free()):
            self.release()
            raise HybridFlowError(
                f"{self._key}: {count} slots of {bundle} were not free within {within_s:g} s (ray.start_timeout_s); "
                f"the cluster has {_free()} free"
            )

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
        if not self._wait(there, 0.0, said):
            raise ClusterError(
                f"{self._key}: {lost}, and no other node had room for what was there within {within}: the pool needs "
                f"{counted(self._count, 'slot')} of {self._bundle}, and the cluster has {_free()} free"
            )

    def release(self) -> None:
        """Give them back."""
        remove_placement_group(self.group)

    def _not_free(self) -> str:
        return f"still waiting until {self._count} slots of the cluster are free"

    def _wait(self, ready: Callable[[], bool], say_after_s: float, words: str) -> bool:
        """Wait until they are ready, and say once what for; tell whether they were in time."""
        begin = monotonic()
        said = False
        while ray_services.lost() or not ready():  # Ray would be silent until it has them back
            interrupt.check()
            ray_services.raise_if_lost()
            now = monotonic()
            if not said and now >= begin + say_after_s and not ray_services.lost():  # which is told by itself
                said = True
                log.warning("%s: %s", self._key, words)
            if now >= begin + self._within_s:
                return False
            sleep(PAUSE_S)
        return True


def _free() -> str:
    has = ray.available_resources()
    return f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
