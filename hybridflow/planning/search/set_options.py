"""SetOptions: the ways in which a set of colocated roles can run, on any number of devices, that are worth a look.

Algorithm 2 of HybridFlow for every role of a set at once: the plans of all of them must fit the memory together. Of
ways that take no more devices and no more seconds in any group of calls only one is kept, so nothing cheaper is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hybridflow.planning.run_spec import FlowCall
from hybridflow.planning.search.pareto import undominated
from hybridflow.planning.search.step_costs import ROLLOUT, Costs, Plan

CHUNK = 1 << 20  # numbers of a product of tables that are looked at together


@dataclass(frozen=True)
class SetOptions:
    """Ways to run a set.

    Attributes:
        devices: of each way, ascending, [ways].
        seconds: of each way and group of calls, [ways, groups]; with generation's own devices then `Costs.sync_size`.
        plans: of each way, by role.
    """

    devices: np.ndarray
    seconds: np.ndarray
    plans: Sequence[Mapping[str, Plan]]


@dataclass(frozen=True)
class _Table:
    """Plans of some roles on some devices: columns are bytes held, bytes at the peak, seconds by group."""

    numbers: np.ndarray
    chosen: np.ndarray  # [rows, roles], places in the roles' lists of plans

    def pruned(self) -> _Table:
        kept = undominated(self.numbers)
        return _Table(self.numbers[kept], self.chosen[kept])


@dataclass
class RolePlans:
    """Plans of roles and what they cost, each looked at once (arXiv 2409.19256, section 6: cached by role and devices).

    Attributes:
        devices: of all sets together.
        evaluated: plans that were costed.
    """

    flow: Sequence[FlowCall]
    costs: Costs
    devices: int
    evaluated: int = 0
    _known: dict[tuple[str, tuple[int, ...], int], tuple[Sequence[Plan], np.ndarray]] = field(default_factory=dict)

    def of(self, role: str, calls: tuple[int, ...], devices: int) -> tuple[Sequence[Plan], np.ndarray]:
        """Return the plans that fit alone; of each its bytes, held and at the peak, and the seconds of its calls."""
        key = (role, calls, devices)
        if key not in self._known:
            self._known[key] = self._looked_at(role, calls, devices)
        return self._known[key]

    def _looked_at(self, role: str, calls: tuple[int, ...], devices: int) -> tuple[Sequence[Plan], np.ndarray]:
        plan, numbers = self.costs.table(role, [self.flow[place] for place in calls], devices, self.devices)
        self.evaluated += len(numbers)
        kept = np.sort(undominated(numbers[:, self._different(calls, numbers.shape[1])]))
        return [plan(place) for place in kept.tolist()], numbers[kept]

    def _different(self, calls: tuple[int, ...], columns: int) -> list[int]:
        """Return the columns of a table but for those of calls that are like one before them, as a step's updates."""
        alike = [(self.flow[place].role, self.flow[place].method, self.flow[place].rows) for place in calls]
        first = {call: at for at, call in reversed([*enumerate(alike)])}
        return [0, 1, *sorted(2 + at for at in first.values()), *range(2 + len(calls), columns)]


def set_options(
    seats: Mapping[str, tuple[int, ...]],
    groups: Sequence[Sequence[int]],
    sizes: Sequence[int],
    known: RolePlans,
    every_size: bool = False,
) -> SetOptions:
    """List the ways to run a set.

    Args:
        seats: its roles, and the places in the flow of the calls of each.
        groups: places in the flow whose seconds count as a sum.
        sizes: numbers of devices that it may have, ascending.
        every_size: keep ways that are no better than others on fewer devices: more of them are good for something else.
    """
    group_of = {place: number for number, group in enumerate(groups) for place in group}
    columns = len(groups) + (ROLLOUT in seats)  # beside the seconds, what syncs of generation's plans depend on
    found: list[tuple[int, np.ndarray, Mapping[str, Plan]]] = []
    for devices in sizes:
        table, lists = _joint(seats, group_of, columns, devices, known)
        seconds = table.numbers[:, 2:]
        for row in undominated(seconds):
            plans = {role: lists[role][at] for role, at in zip(seats, table.chosen[row], strict=True)}
            found.append((devices, seconds[row], plans))
    numbers = np.array([[devices, *seconds] for devices, seconds, _ in found]).reshape(-1, 1 + columns)
    kept = np.arange(len(numbers)) if every_size else undominated(numbers)
    return SetOptions(numbers[kept, 0].astype(int), numbers[kept, 1:], [found[place][2] for place in kept])


def _joint(
    seats: Mapping[str, tuple[int, ...]], group_of: Mapping[int, int], groups: int, devices: int, known: RolePlans
) -> tuple[_Table, Mapping[str, Sequence[Plan]]]:
    """Combine the plans of the roles of a set that fit together."""
    table = _Table(np.zeros((1, 2 + groups)), np.zeros((1, 0), int))
    lists: dict[str, Sequence[Plan]] = {}
    for role, calls in seats.items():
        lists[role], rows = known.of(role, calls, devices)
        summed = np.zeros((len(rows), 2 + groups))
        summed[:, :2] = rows[:, :2]
        for column, place in enumerate(calls):
            summed[:, 2 + group_of[place]] += rows[:, 2 + column]
        if role == ROLLOUT:
            summed[:, -1] = rows[:, -1]
        own = _Table(summed, np.arange(len(rows))[:, None]).pruned()
        table = _product(table, own, known.costs.device_bytes)
    return table, lists


def _product(left: _Table, right: _Table, device_bytes: float) -> _Table:
    """Combine every row with every other: bytes held and seconds add up, of the peaks the higher one counts."""
    at_once = max(1, CHUNK // max(1, len(right.numbers) * right.numbers.shape[1]))
    empty = _Table(left.numbers[:0], np.zeros((0, left.chosen.shape[1] + right.chosen.shape[1]), int))
    parts = [empty]
    for start in range(0, len(left.numbers), at_once):
        some = left.numbers[start : start + at_once]
        numbers = some[:, None, :] + right.numbers[None, :, :]
        numbers[:, :, 1] = np.maximum(some[:, None, 1], right.numbers[None, :, 1])
        mine, other = np.nonzero(numbers[:, :, 0] + numbers[:, :, 1] <= device_bytes)
        chosen = np.concatenate([left.chosen[start + mine], right.chosen[other]], axis=1)
        parts.append(_Table(numbers[mine, other], chosen).pruned())
    joined = _Table(np.concatenate([part.numbers for part in parts]), np.concatenate([part.chosen for part in parts]))
    return joined.pruned() if len(parts) > 2 else joined
