"""Every placement, costed one by one: what the search is compared with on few devices. It leaves nothing out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from hybridflow.planning.search.placement_search import Candidate, Found, PlacementSearch
from hybridflow.planning.search.step_costs import ACTOR, SYNC, Plan


def cheapest(search: PlacementSearch, candidate: Candidate) -> Found | None:
    """Return the best placement of a candidate, found by looking at all of them; None if nothing fits."""
    best: Found | None = None
    for devices in product(search.sizes, repeat=len(candidate.sets)):
        if sum(devices) > search.devices:
            continue
        for plans in _fitting(search, candidate, devices):
            seconds = step_s(search, candidate, devices, plans)
            if best is None or seconds < best.seconds:
                best = Found(candidate, seconds, devices, plans)
    return best


def _fitting(search: PlacementSearch, candidate: Candidate, devices: Sequence[int]) -> Iterator[Mapping[str, Plan]]:
    """Yield every choice of a plan for each role by which no set needs more memory than there is."""
    roles = [(role, number) for number, one in enumerate(candidate.sets) for role in one]
    calls = {role: search.calls_of(role, candidate) for role, _ in roles}
    lists = [search.costs.plans(role, calls[role], devices[number]) for role, number in roles]
    for chosen in product(*lists):
        plans = {role: plan for (role, _), plan in zip(roles, chosen, strict=True)}
        if all(_fits(search, {role: plans[role] for role in one}, candidate) for one in candidate.sets):
            yield plans


def _fits(search: PlacementSearch, plans: Mapping[str, Plan], candidate: Candidate) -> bool:
    needs = [search.costs.need(role, search.calls_of(role, candidate), plan) for role, plan in plans.items()]
    return sum(need.held for need in needs) + max(need.peak for need in needs) <= search.costs.device_bytes


def step_s(search: PlacementSearch, candidate: Candidate, devices: Sequence[int], plans: Mapping[str, Plan]) -> float:
    """Return the seconds of a step, call by call."""
    set_of = {role: number for number, one in enumerate(candidate.sets) for role in one}
    trainers = devices[set_of[ACTOR]] if candidate.apart else 0
    seconds, pools = [], []
    for call in search.calls:
        seat = search.seat(call, candidate)
        pools.append(set_of[seat])
        sync = call.method == SYNC
        seconds.append(
            search.costs.sync_s(plans[seat], trainers) if sync else search.costs.call_s(seat, call, plans[seat])
        )
    if not candidate.overlaps:
        return _makespan(search, seconds, pools, range(len(seconds)))
    calls = [place for place, call in enumerate(search.calls) if call.method != SYNC]
    synced = sum(seconds) - sum(seconds[place] for place in calls)
    sampling = [place for place in calls if search.calls[place].samples]
    learning = [place for place in calls if not search.calls[place].samples]
    busy = [sum(seconds[place] for place in calls if pools[place] == pool) for pool in range(len(devices))]
    both = (_makespan(search, seconds, pools, part) for part in (sampling, learning))
    return synced + max(*both, *busy)


def _makespan(search: PlacementSearch, seconds: Sequence[float], pools: Sequence[int], calls: Sequence[int]) -> float:
    ends: dict[int, float] = {}
    free = dict.fromkeys(pools, 0.0)
    for place in calls:
        begin = max([free[pools[place]], *(ends.get(other, 0.0) for other in search.calls[place].after)])
        ends[place] = free[pools[place]] = begin + seconds[place]
    return max(free.values())
