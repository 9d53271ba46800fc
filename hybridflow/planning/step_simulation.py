"""estimate_step: what a step of a run takes on an arrangement, by the calls of its flow."""

from __future__ import annotations

from collections.abc import Mapping

from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.estimates import Span, Spread, StepEstimate
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import FlowCall, RunSpec, Work


def estimate_step(
    spec: RunSpec, arrangement: Arrangement, hardware: Hardware, simulators: Simulators | None = None
) -> StepEstimate:
    """Return what a step takes: each pool carries out its calls in order, a call starts when its rows are there."""
    known = simulators or Simulators(hardware)
    spans: list[Span] = []
    free = dict.fromkeys(arrangement.pools, 0.0)
    phases: dict[str, Spread] = {}
    ends: list[float] = []
    if any(call.work is Work.generate for call in spec.flow):
        sync = _sync(spec, arrangement, known)
        phases["sync_weights"] = sync
        for pool in {arrangement.seats["actor"].pool, arrangement.seats[arrangement.generator].pool}:
            spans.append(Span(pool, "actor", "sync_weights", 0.0, sync.mean))
            free[pool] = sync.mean
    for call in spec.flow:
        role = arrangement.generator if call.work is Work.generate else call.role
        seat = arrangement.seats[role]
        spread = known.call_s(call, spec.models.get(call.role), seat.layout, spec)
        begin = max([free[seat.pool], *(ends[before] for before in call.after)])
        ends.append(begin + spread.mean)
        free[seat.pool] = ends[-1]
        spans.append(Span(seat.pool, call.role, call.method, begin, ends[-1]))
        _add(phases, call, spread)
    seconds = max([*ends, *free.values()], default=0.0)
    idle = {
        pool: seconds - sum(span.end - span.begin for span in spans if span.pool == pool) for pool in arrangement.pools
    }
    low = seconds - sum(phase.mean - phase.low for phase in phases.values())
    high = seconds + sum(phase.high - phase.mean for phase in phases.values())
    tokens = spec.rows * (spec.prompt_tokens.mean + spec.response_tokens.mean)
    return StepEstimate(Spread(seconds, low, high), phases, tuple(spans), idle, tokens)


def _sync(spec: RunSpec, arrangement: Arrangement, simulators: Simulators) -> Spread:
    apart = arrangement.generator == "rollout"
    generation = arrangement.seats["rollout"].layout if apart else None
    return simulators.sync_s(spec.models["actor"], arrangement.seats["actor"].layout, generation, spec)


def _add(phases: dict[str, Spread], call: FlowCall, spread: Spread) -> None:
    name = f"{call.role}.{call.method}"
    before: Mapping[str, Spread] = phases
    had = before.get(name, Spread(0.0, 0.0, 0.0))
    phases[name] = Spread(had.mean + spread.mean, had.low + spread.low, had.high + spread.high)
