"""What the search asks of a cost model: seconds and bytes of a role's plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hybridflow.config.schema import Recompute
from hybridflow.parallel.layout import Layout
from hybridflow.planning.run_spec import SYNC, FlowCall

ACTOR = "actor"
ROLLOUT = "rollout"


@dataclass(frozen=True)
class Plan:
    """Plan of how a role runs on the devices of its set.

    Attributes:
        layout: with the sizes of generation, where its ranks train and generate.
        max_tokens_per_rank: of a micro-batch.
        memory_fraction: of a device for generation in all; 0: as the settings have it.
    """

    layout: Layout
    recompute: Recompute = Recompute.none
    max_tokens_per_rank: int = 8192
    memory_fraction: float = 0.0


class Need(NamedTuple):
    """Bytes of a role on its fullest device.

    Attributes:
        held: all the time.
        peak: beside them, in that of its calls that needs most. Roles of a set take turns.
    """

    held: float
    peak: float


class PlanTable(NamedTuple):
    """Plans of a role, and what they cost.

    Attributes:
        plan: gives the plan of a row.
        numbers: [plans, 2 + calls]: bytes held and at the peak, the seconds of each call; with generation's own devices
            then `Costs.sync_size`.
    """

    plan: Callable[[int], Plan]
    numbers: np.ndarray


class Costs(Protocol):
    """Cost of what a role does by a plan; the same arguments always cost the same.

    The role that generates is `rollout` where it has devices of its own, else `actor`.
    """

    @property
    def device_bytes(self) -> float:
        """Return the bytes that a device has for roles."""
        raise NotImplementedError

    def table(self, role: str, calls: Sequence[FlowCall], devices: int, most: int) -> PlanTable:
        """Return a role's plans on so many of `most` devices, without those that do not fit alone."""
        plans: list[Plan] = []
        rows: list[list[float]] = []
        for plan in self.plans(role, calls, devices):
            need = self.need(role, calls, plan)
            if need.held + need.peak > self.device_bytes:
                continue
            plans.append(plan)
            rows.append([need.held, need.peak, *(self._of_call_s(role, call, plan, most) for call in calls)])
            if role == ROLLOUT:
                rows[-1].append(self.sync_size(plan))
        numbers = np.array(rows, dtype=float).reshape(len(plans), 2 + len(calls) + (role == ROLLOUT))
        return PlanTable(plans.__getitem__, numbers)

    def _of_call_s(self, role: str, call: FlowCall, plan: Plan, most: int) -> float:
        """Return the seconds of a call; of a weight sync to other devices, if as many as there are send."""
        if call.method == SYNC:
            return self.least_sync_s(plan, most) if role == ROLLOUT else self.sync_s(plan, 0)
        return self.call_s(role, call, plan)

    def plans(self, role: str, calls: Sequence[FlowCall], devices: int) -> Sequence[Plan]:
        """List the plans that a role has on so many devices, whether or not they fit."""
        raise NotImplementedError

    def need(self, role: str, calls: Sequence[FlowCall], plan: Plan) -> Need:
        """Return the bytes that a role needs for these calls."""
        raise NotImplementedError

    def call_s(self, role: str, call: FlowCall, plan: Plan) -> float:
        """Return the seconds of a call that is no weight sync."""
        raise NotImplementedError

    def sync_s(self, plan: Plan, trainers: int) -> float:
        """Return the seconds of a weight sync.

        Args:
            plan: of the role that generates.
            trainers: devices of the actor, where generation has others; 0: they are the same.
        """
        raise NotImplementedError

    def least_sync_s(self, plan: Plan, devices: int) -> float:
        """Return seconds that no sync to generation's own devices is below, from any trainers among so many in all."""
        raise NotImplementedError

    def sync_size(self, plan: Plan) -> float:
        """Return a number by which plans of generation's own devices compare.

        One that has no larger number, and no more devices, is never longer in a sync, from the same trainers.
        """
        raise NotImplementedError
