"""Every placement, costed one by one: what the search is compared with on few devices. It leaves nothing out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from hybridflow.planning.run_spec import SYNC
from hybridflow.planning.search.placement_search import Candidate, Found, PlacementSearch
from hybridflow.planning.search.step_costs import ACTOR, Plan


def cheapest(search: PlacementSearch, candidate: Candidate) -> Found | None:
    """Return the best placement of a candidate, found by looking at all of them; None if nothing fits."""
    best: Found | None = None
    for devices in product(search.sizes, repeat=len(candidate.sets)):
        if sum(devices) > search.devices:
            continue
        every = _EveryPlan(search, candidate, devices)
        seconds = every.seconds()
        if seconds.size and seconds.min() < (best.seconds if best else np.inf):
            at = np.unravel_index(int(seconds.argmin()), seconds.shape)
            plans = {role: own[int(place)] for (role, own), place in zip(every.plans.items(), at, strict=True)}
            best = Found(candidate, float(seconds.min()), devices, plans)
    return best


class _EveryPlan:
    """Choices of a plan for each role on some devices: arrays have an axis a role, along which its plan varies."""

    def __init__(self, search: PlacementSearch, candidate: Candidate, devices: Sequence[int]) -> None:
        self._search = search
        self._candidate = candidate
        self._set_of = {role: number for number, one in enumerate(candidate.sets) for role in one}
        self._devices = devices
        self.plans: dict[str, Sequence[Plan]] = {
            role: search.costs.plans(role, search.calls_of(role, candidate), devices[number])
            for role, number in self._set_of.items()
        }

    def seconds(self) -> np.ndarray:
        """Return the seconds of a step for every choice; infinite where a set needs more memory than there is."""
        calls = [self._call(place) for place in range(len(self._search.calls))]
        everything = range(len(calls))
        shape = tuple(map(len, self.plans.values()))
        if not self._candidate.overlaps:
            return np.where(self._fits(), np.broadcast_to(self._makespan(calls, everything), shape), np.inf)
        kinds = self._search.calls
        rest = [place for place in everything if kinds[place].method != SYNC]
        sampling = self._makespan(calls, [place for place in rest if kinds[place].samples])
        learning = self._makespan(calls, [place for place in rest if not kinds[place].samples])
        both = np.maximum(sampling, learning)
        for pool in range(len(self._devices)):
            both = np.maximum(both, sum((calls[place] for place in rest if self._pool(place) == pool), np.zeros(())))
        synced = sum((calls[place] for place in everything if place not in rest), np.zeros(()))
        return np.where(self._fits(), np.broadcast_to(both + synced, shape), np.inf)

    def _seat(self, place: int) -> str:
        return self._search.seat(self._search.calls[place], self._candidate)

    def _pool(self, place: int) -> int:
        return self._set_of[self._seat(place)]

    def _along(self, role: str, values: Sequence[float]) -> np.ndarray:
        axis = list(self.plans).index(role)
        shape = [1] * len(self.plans)
        shape[axis] = len(values)
        return np.asarray(values, dtype=float).reshape(shape)

    def _call(self, place: int) -> np.ndarray:
        call, role = self._search.calls[place], self._seat(place)
        costs = self._search.costs
        if call.method == SYNC:
            trainers = self._devices[self._set_of[ACTOR]] if self._candidate.apart else 0
            return self._along(role, [costs.sync_s(plan, trainers) for plan in self.plans[role]])
        return self._along(role, [costs.call_s(role, call, plan) for plan in self.plans[role]])

    def _fits(self) -> np.ndarray:
        fits: Any = np.ones((1,) * len(self.plans), bool)
        for roles in self._candidate.sets:
            held, peak = np.zeros(()), np.zeros(())
            for role in roles:
                calls = self._search.calls_of(role, self._candidate)
                needs = [self._search.costs.need(role, calls, plan) for plan in self.plans[role]]
                held = held + self._along(role, [need.held for need in needs])
                peak = np.maximum(peak, self._along(role, [need.peak for need in needs]))
            fits = fits & (held + peak <= self._search.costs.device_bytes)
        return np.asarray(fits)

    def _makespan(self, calls: Sequence[np.ndarray], places: Sequence[int]) -> np.ndarray:
        ends: dict[int, np.ndarray] = {}
        free: dict[int, np.ndarray] = {}
        for place in places:
            begin = free.get(self._pool(place), np.zeros(()))
            for other in self._search.calls[place].after:
                begin = np.maximum(begin, ends.get(other, np.zeros(())))
            ends[place] = free[self._pool(place)] = begin + calls[place]
        end = np.zeros(())
        for last in free.values():
            end = np.maximum(end, last)
        return end
