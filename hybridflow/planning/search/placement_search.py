"""Search for the cheapest placement: Algorithm 1 of HybridFlow (arXiv 2409.19256, section 6).

For every way to colocate the roles, the sets get devices and each role its best plan (`set_options`, `allocation`).
Beyond the paper generation may have a pool of its own, with the schedules that this allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

import numpy as np

from hybridflow.planning.run_spec import SYNC, FlowCall, Work
from hybridflow.planning.search.allocation import best_allocation
from hybridflow.planning.search.mixed_integer_bound import lower_bound
from hybridflow.planning.search.partitions import set_partitions
from hybridflow.planning.search.set_options import RolePlans, SetOptions, set_options
from hybridflow.planning.search.step_costs import ACTOR, ROLLOUT, Costs, Plan
from hybridflow.planning.search.step_shape import StepShape


@dataclass(frozen=True)
class Candidate:
    """Who is colocated with whom.

    Attributes:
        sets: roles that share devices; `rollout` is one where generation has devices of its own.
        overlaps: a step is sampled while another is learned from.
    """

    sets: tuple[tuple[str, ...], ...]
    overlaps: bool = False

    @property
    def apart(self) -> bool:
        """Tell whether generation has devices of its own."""
        return any(ROLLOUT in one for one in self.sets)


@dataclass(frozen=True)
class Found:
    """Best that a candidate can do.

    Attributes:
        seconds: of a step.
        devices: of each set.
        plans: by role.
    """

    candidate: Candidate
    seconds: float
    devices: tuple[int, ...]
    plans: Mapping[str, Plan]


@dataclass
class PlacementSearch:
    """Search on a number of devices; candidates share what has been looked at.

    Attributes:
        flow: of a step, without its weight sync.
        models: roles with a model; others are graders, who sit where the actor does.
        sizes: numbers of devices that a set may have, ascending.
    """

    flow: Sequence[FlowCall]
    models: Sequence[str]
    costs: Costs
    devices: int
    sizes: Sequence[int]
    _options: dict[object, SetOptions] = field(default_factory=dict)

    @cached_property
    def calls(self) -> tuple[FlowCall, ...]:
        """Calls of a step, the weight sync first, if there is one."""
        return with_sync(self.flow)

    @cached_property
    def known(self) -> RolePlans:
        """Plans that have been looked at."""
        return RolePlans(self.calls, self.costs, self.devices)

    def candidates(self, *, overlaps: bool = False) -> Iterator[Candidate]:
        """Yield who can be colocated with whom; those where a step is sampled during another's learning, if asked."""
        roles = [role for role in dict.fromkeys(call.role for call in self.flow) if role in self.models]
        for sets in set_partitions(roles):
            yield Candidate(sets)
        if not any(call.method == SYNC for call in self.calls):
            return
        for sets in set_partitions([*roles, ROLLOUT]):
            if any({ACTOR, ROLLOUT} <= {*one} for one in sets):
                continue
            yield Candidate(sets)
            if overlaps and (ROLLOUT,) in sets:
                yield Candidate(sets, overlaps=True)

    def look_at_plans(self, candidates: Sequence[Candidate]) -> Iterator[int]:
        """Cost all plans of the roles of some candidates; yields after each number of devices how many are done."""
        asked = {(role, self._places(role, one)): None for one in candidates for roles in one.sets for role in roles}
        for done, devices in enumerate(self.sizes, 1):
            for role, places in asked:
                self.known.of(role, places, devices)
            yield done

    def shape(self, candidate: Candidate) -> StepShape:
        """Return the shape of a candidate's step."""
        set_of = {role: number for number, one in enumerate(candidate.sets) for role in one}
        owners = tuple(set_of[self.seat(call, candidate)] for call in self.calls)
        return StepShape(self.calls, owners, candidate.overlaps, candidate.apart)

    def options(self, candidate: Candidate) -> list[SetOptions]:
        """Return the ways in which each set of a candidate can run."""
        shape = self.shape(candidate)
        return [self._set_options(candidate, shape, number) for number in range(len(candidate.sets))]

    def seat(self, call: FlowCall, candidate: Candidate) -> str:
        """Return the role whose ranks carry out a call."""
        if candidate.apart and call.role == ACTOR and (call.work is Work.generate or call.method == SYNC):
            return ROLLOUT
        return call.role if call.role in self.models else self._first

    def calls_of(self, role: str, candidate: Candidate) -> tuple[FlowCall, ...]:
        """Return the calls that the ranks of a role carry out."""
        return tuple(self.calls[place] for place in self._places(role, candidate))

    def _places(self, role: str, candidate: Candidate) -> tuple[int, ...]:
        """Return the places of those calls in the flow."""
        return tuple(place for place, call in enumerate(self.calls) if self.seat(call, candidate) == role)

    def best(self, candidate: Candidate, below: float = inf) -> Found | None:
        """Return the best that a candidate can do; None if nothing fits, or takes fewer seconds than `below`."""
        sets = self.options(candidate)
        excess = SyncExcess.between(self, candidate, sets) if candidate.apart else None
        made = best_allocation(self.shape(candidate), sets, self.devices, below, excess)
        if made is None:
            return None
        chosen = list(zip(sets, made.ways, strict=True))
        plans = {role: plan for one, way in chosen for role, plan in one.plans[way].items()}
        return Found(candidate, made.seconds, tuple(int(one.devices[way]) for one, way in chosen), plans)

    def bound(self, candidate: Candidate, above: float = inf, limit_s: float = 20.0) -> float:
        """Return seconds that no placement of a candidate is below, by a mixed-integer program; see `lower_bound`."""
        sets = self.options(candidate)
        if not all(len(one.devices) for one in sets):
            return above
        return lower_bound(self.shape(candidate), sets, self.devices, above, limit_s)

    @cached_property
    def _first(self) -> str:
        return ACTOR if ACTOR in self.models else self.models[0]

    def _set_options(self, candidate: Candidate, shape: StepShape, number: int) -> SetOptions:
        roles = candidate.sets[number]
        seats = {role: self._places(role, candidate) for role in roles}
        every_size = candidate.apart and ACTOR in roles  # more trainers give weights away sooner
        key = (tuple(seats.items()), shape.segments[number], every_size)
        if key not in self._options:
            self._options[key] = set_options(seats, shape.segments[number], self.sizes, self.known, every_size)
        return self._options[key]


@dataclass
class SyncExcess:
    """Seconds of a weight sync to generation's own devices beyond the least that it can take."""

    sets: tuple[int, int]
    costs: Costs
    trainers: np.ndarray
    sizes: np.ndarray
    plans: Sequence[Plan]
    least: np.ndarray
    table: np.ndarray

    @staticmethod
    def between(search: PlacementSearch, candidate: Candidate, sets: Sequence[SetOptions]) -> SyncExcess:
        """Make that of a candidate whose generation is apart."""
        first, second = (
            next(number for number, one in enumerate(candidate.sets) if role in one) for role in (ACTOR, ROLLOUT)
        )
        plans = [one[ROLLOUT] for one in sets[second].plans]
        least = np.array([search.costs.least_sync_s(plan, search.devices) for plan in plans])
        sizes = np.unique(sets[first].devices)
        unknown = np.full((len(sizes), len(plans)), np.nan)
        return SyncExcess((first, second), search.costs, sets[first].devices, sizes, plans, least, unknown)

    def of(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        rows = np.searchsorted(self.sizes, self.trainers[first])
        rows, columns = np.broadcast_arrays(rows, second)
        for row, column in {*zip(rows.tolist(), columns.tolist(), strict=True)}:
            if np.isnan(self.table[row, column]):
                seconds = self.costs.sync_s(self.plans[column], int(self.sizes[row]))
                self.table[row, column] = seconds - self.least[column]
        return self.table[rows, columns]


def with_sync(flow: Sequence[FlowCall]) -> tuple[FlowCall, ...]:
    """Put the weight sync before the calls of a step that samples."""
    if not any(call.work is Work.generate for call in flow):
        return tuple(flow)
    first = FlowCall(ACTOR, SYNC, Work.rows, True, 0)
    return (first, *(replace(call, after=tuple(place + 1 for place in call.after)) for call in flow))
