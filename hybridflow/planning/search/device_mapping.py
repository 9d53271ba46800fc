"""Device mapping: the search for a placement on some hardware, and what a step takes on what it finds.

The search composes a step of what its calls take at their expected lengths, which is exact for its own arithmetic. The
best of every way to colocate the roles are then simulated, under each schedule that may be, and the fastest is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from hybridflow.errors import HybridFlowError, counted
from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.estimates import SlotMemory, StepEstimate
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import RunSpec, Work
from hybridflow.planning.search.placement_search import Candidate, Found, PlacementSearch
from hybridflow.planning.search.shared_time import least_bound
from hybridflow.planning.search.simulated_costs import SimulatedCosts, by_plan, divisors
from hybridflow.planning.search.step_costs import ACTOR, ROLLOUT
from hybridflow.planning.slot_memory import slot_memory
from hybridflow.planning.step_simulation import estimate_step

SYNC_SCHEDULE = "sync"
SIMULATED = 8  # of the ways to colocate the roles, under each schedule
Progress = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class MappedRun:
    """Placement that was found, and what a run takes on it.

    Attributes:
        composed: seconds of a step as the search has them.
        spec: of the run, with the schedule, the recomputation and the micro-batches of this placement.
    """

    found: Found
    schedule: str
    spec: RunSpec
    arrangement: Arrangement
    step: StepEstimate
    memory: tuple[SlotMemory, ...]


@dataclass(frozen=True)
class Unfit:
    """Way to colocate the roles that the devices have no memory for, and why."""

    candidate: Candidate
    why: str


@dataclass(frozen=True)
class DeviceMapping:
    """Findings of a search.

    Attributes:
        runs: that were simulated, the fastest first.
        found: the best of every way to colocate the roles that fits, the fastest first, as the search composes a step.
        unfit: the others.
        bound: seconds of a composed step that no placement is below, by a mixed-integer program; 0: not asked for.
        looked_at: plans of roles that were costed.
    """

    devices: int
    hardware: Hardware
    runs: tuple[MappedRun, ...]
    found: tuple[Found, ...]
    unfit: tuple[Unfit, ...]
    bound: float
    looked_at: int

    @property
    def best(self) -> MappedRun:
        """Return the fastest."""
        return self.runs[0]

    @property
    def gap(self) -> float:
        """Return how far the fastest composed step may be above the fastest that there is, as a share of it."""
        return max(0.0, 1.0 - self.bound / self.found[0].seconds)


def map_devices(
    spec: RunSpec,
    hardware: Hardware,
    devices: int,
    *,
    schedules: Mapping[str, Mapping[str, object]] = MappingProxyType({SYNC_SCHEDULE: MappingProxyType({})}),
    simulated: int = SIMULATED,
    bound_s: float = 0.0,
    progress: Progress = lambda what, done, of: None,
) -> DeviceMapping:
    """Search for the fastest placement.

    Args:
        schedules: that may be taken, with what settings change of them (`scheduling.policy_of`).
        simulated: how many ways to colocate the roles are simulated under each schedule, the fastest as composed.
        bound_s: seconds that may go into a bound on what any placement can come to; 0: it is not asked for.

    Raises HybridFlowError if nothing fits, or the flow has a policy beside the actor that generates.
    """
    _refuse_other_generators(spec)
    costs = SimulatedCosts(spec, hardware)
    sizes = pool_sizes(devices, hardware.devices_per_node)
    search = PlacementSearch(spec.flow, tuple(spec.models), costs, devices, sizes)
    candidates = _candidates(search, schedules)
    for done in search.look_at_plans(candidates):
        progress("plans of roles by devices", done, len(sizes))
    found, unfit = _best_of_each(search, candidates, progress)
    if not found:
        raise HybridFlowError(f"nothing fits {counted(devices, 'device')} of {hardware.name}: {unfit[0].why}")
    bound = _bound(search, found, bound_s, progress) if bound_s else 0.0
    runs = list(_simulated(spec, costs, found, schedules, simulated, progress))
    runs.sort(key=lambda run: run.step.seconds.mean)
    return DeviceMapping(devices, hardware, tuple(runs), tuple(found), tuple(unfit), bound, search.known.evaluated)


def _candidates(search: PlacementSearch, schedules: Collection[str]) -> list[Candidate]:
    """List the ways to colocate the roles that some of these schedules can have."""
    every = search.candidates(overlaps=bool({*schedules} - {SYNC_SCHEDULE}))
    return [one for one in every if one.overlaps or SYNC_SCHEDULE in schedules]


def _best_of_each(
    search: PlacementSearch, candidates: Sequence[Candidate], progress: Progress
) -> tuple[list[Found], list[Unfit]]:
    """Return the best of every way to colocate the roles, the fastest first, and those that nothing fits."""
    found: list[Found] = []
    unfit: list[Unfit] = []
    for number, candidate in enumerate(candidates):
        progress("ways to colocate the roles", number, len(candidates))
        best = search.best(candidate)
        if best is None:
            unfit.append(Unfit(candidate, _why_unfit(search, candidate)))
        else:
            found.append(best)
    found.sort(key=lambda one: one.seconds)
    return found, unfit


def pool_sizes(devices: int, per_node: int) -> list[int]:
    """Return how many devices a set may have: any number on one node; of several nodes whole ones, or parts of one.

    Parts divide a node, so that they can be put on nodes without a remainder between them.
    """
    if devices <= per_node:
        return list(range(1, devices + 1))
    return [*divisors(per_node)[:-1], *range(per_node, devices + 1, per_node)]


def _refuse_other_generators(spec: RunSpec) -> None:
    for call in spec.flow:
        if call.work is Work.generate and call.role != ACTOR:
            raise HybridFlowError(
                f"{call.role}.{call.method} generates too, and rollout.parallel is one for all policies; a placement "
                "of such a run is not searched for, but written by hand (docs/placement.md)"
            )


def _why_unfit(search: PlacementSearch, candidate: Candidate) -> str:
    """Say which of a candidate's sets need how many devices."""
    options = list(zip(candidate.sets, search.options(candidate), strict=True))
    for roles, ways in options:
        if not len(ways.devices):
            return f"{' + '.join(roles)}: more memory is needed than {counted(search.devices, 'device')} have"
    needs = ", ".join(f"{' + '.join(roles)} {ways.devices[0]}" for roles, ways in options)
    return f"at least {sum(int(ways.devices[0]) for _, ways in options)} devices are needed: {needs}"


def _bound(search: PlacementSearch, found: Sequence[Found], within_s: float, progress: Progress) -> float:
    """Return seconds that no placement of what was found is below."""
    best = found[0].seconds
    above = best * (1 + 1e-9)  # of others it is enough to know that they are above
    bounds = [partial(search.bound, one.candidate, above) for one in found]
    return least_bound(bounds, best, within_s, lambda done: progress("bounds", done, len(found)))


def _simulated(
    spec: RunSpec,
    costs: SimulatedCosts,
    found: Sequence[Found],
    schedules: Mapping[str, Mapping[str, object]],
    count: int,
    progress: Progress,
) -> Iterator[MappedRun]:
    """Yield the best of what was found as simulated runs."""
    for name, changes in schedules.items():
        mine = [one for one in found if one.candidate.overlaps is (name != SYNC_SCHEDULE)][:count]
        for number, one in enumerate(mine):
            progress(f"simulated steps, {name}", number, len(mine))
            own = run_of(spec, one, name, changes)
            where = arrangement_of_found(spec, one)
            memory = slot_memory(own, where, costs.hardware)
            assert all(slot.peak <= costs.device_bytes * (1 + 1e-9) for slot in memory), (one, memory)
            step = estimate_step(own, where, costs.hardware, simulators=costs.simulators)
            yield MappedRun(one, name, own, where, step, memory)


def run_of(spec: RunSpec, found: Found, schedule: str, changes: Mapping[str, object]) -> RunSpec:
    """Return a run as a placement has it: its schedule, how each role runs, and generation's share of the memory."""
    models = {role: by_plan(model, found.plans[role]) for role, model in spec.models.items()}
    generator = found.plans.get(ROLLOUT) or found.plans.get(ACTOR)
    share = generator.memory_fraction if generator else 0.0
    return replace(
        spec,
        models=models,
        schedule=schedule,
        schedule_changes=dict(changes),
        memory_fraction=share or spec.memory_fraction,
    )


def arrangement_of_found(spec: RunSpec, found: Found) -> Arrangement:
    """Return who sits where; who has no model sits where the actor does, or on the first pool."""
    names = pool_names(found.candidate)
    pools = dict(zip(names, found.devices, strict=True))
    seats = {
        role: Seat(name, found.plans[role].layout)
        for name, roles in zip(names, found.candidate.sets, strict=True)
        for role in roles
    }
    first = seats[ACTOR].pool if ACTOR in seats else names[0]
    graders = {call.role: Seat(first, Layout(data=pools[first])) for call in spec.flow if call.role not in spec.models}
    return Arrangement(pools, seats | graders)


def pool_names(candidate: Candidate) -> list[str]:
    """Name the pool of each set by its roles; the only one as usual."""
    return ["main"] if len(candidate.sets) == 1 else ["_".join(roles) for roles in candidate.sets]


def is_apart(run: MappedRun) -> bool:
    """Tell whether generation has a pool of its own."""
    return ROLLOUT in run.arrangement.seats
