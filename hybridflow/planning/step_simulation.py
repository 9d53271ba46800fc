"""estimate_step: what a step of a run takes on an arrangement, under its schedule.

A few steps of the run are simulated (`simulated_run`), with lengths of responses that are drawn anew in each; the first
ones, in which nothing overlaps yet, and the last ones, in which nothing is begun any more, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.estimates import Span, Spread, StepEstimate
from hybridflow.planning.flow_costs import FlowCosts, generates_by_calls
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import RunSpec
from hybridflow.planning.simulated_pools import DRIVER
from hybridflow.planning.simulated_run import SimulatedRun
from hybridflow.scheduling import SCHEDULES, SchedulePolicy, policy_of

MAX_ROWS = 256  # of a step that are simulated one by one; of more, each stands for several
DRAWS = 16
SEED = 1


def estimate_step(
    spec: RunSpec,
    arrangement: Arrangement,
    hardware: Hardware,
    *,
    simulators: Simulators | None = None,
    draws: int = DRAWS,
) -> StepEstimate:
    """Return what a step takes.

    Args:
        simulators: to be asked, where they have been asked before.
        draws: steps whose lengths are drawn; 0: one of expected lengths, which is faster and has no spread.

    Raises KeyError for a role of the flow that has no seat.
    """
    known = simulators or Simulators(hardware)
    policy = policy_of_spec(spec, lends=arrangement.lends)
    costs = FlowCosts(spec, arrangement, known, policy)
    ahead = policy.max_staleness + 1
    steps = (draws or (1 if costs.is_whole else 4)) + 2 * ahead  # what overlaps has no two steps alike
    outcome = SimulatedRun(policy, lengths_of_steps(spec, policy, steps, drawn=draws > 0), costs).finish()
    spans = [span for span in outcome.spans if span.end > span.begin and span.pool != DRIVER]
    ended = outcome.ended
    windows = [Window(ended[step - 1], ended[step], spans) for step in range(ahead, steps - ahead)]
    seconds = [window.end - window.begin for window in windows]
    typical = windows[int(np.argmin(np.abs(np.asarray(seconds) - np.mean(seconds))))]
    names = dict.fromkeys(_phase(span) for window in windows for span in window.spans)
    return StepEstimate(
        seconds=_spread(seconds),
        phases={name: _spread([window.phase(name) for window in windows]) for name in names},
        spans=tuple(typical.spans),
        idle={pool: float(np.mean([window.idle(pool) for window in windows])) for pool in arrangement.pools},
        tokens=spec.rows * (spec.prompt_tokens.mean + spec.response_tokens.mean),
    )


def policy_of_spec(spec: RunSpec, *, lends: bool = False) -> SchedulePolicy:
    """Return the schedule's policy, of fewer prompts where a step has very many rows; a schedule that is not ours is
    taken for sync.
    """
    known = spec.schedule in SCHEDULES
    changes: dict[str, Any] = dict(spec.schedule_changes) if known else {}
    name = spec.schedule if known else "sync"
    policy = policy_of(name, spec.prompts, samples_per_prompt=spec.samples, **changes)
    scale = spec.rows // MAX_ROWS
    if generates_by_calls(policy, lends=lends) or scale <= 1:
        return policy
    prompts = max(policy.minibatches, spec.prompts // scale)
    spare = ceil(policy.spare_prompts * prompts / spec.prompts)
    return replace(policy, prompts_per_step=prompts, spare_prompts=spare)


@dataclass(frozen=True)
class Window:
    """Step of a simulated run: from the end of the one before to its own."""

    begin: float
    end: float
    of: Sequence[Span]

    @property
    def spans(self) -> list[Span]:
        """Return what of the spans is in it, from its begin on."""
        return [
            Span(span.pool, span.role, span.method, max(span.begin, self.begin) - self.begin,
                 min(span.end, self.end) - self.begin)
            for span in sorted(self.of, key=lambda span: span.begin)
            if span.begin < self.end and span.end > self.begin
        ]  # fmt: skip

    def phase(self, name: str) -> float:
        """Return the seconds of the calls of a name; one that is on two pools, as a weight sync, counts once."""
        return _covered(span for span in self.spans if _phase(span) == name)

    def idle(self, pool: str) -> float:
        """Return the seconds in which a pool does nothing."""
        return self.end - self.begin - _covered(span for span in self.spans if span.pool == pool)


def _phase(span: Span) -> str:
    return span.method if span.method == "sync_weights" else f"{span.role}.{span.method}"


def _covered(spans: Iterable[Span]) -> float:
    """Return the seconds in which any of some spans is."""
    total = 0.0
    until = -1.0
    for span in sorted(spans, key=lambda span: span.begin):
        total += max(0.0, span.end - max(span.begin, until))
        until = max(until, span.end)
    return total


def _spread(values: Sequence[float]) -> Spread:
    low, high = np.quantile(values, [0.05, 0.95])
    return Spread(float(np.mean(values)), float(low), float(high))


def lengths_of_steps(spec: RunSpec, policy: SchedulePolicy, steps: int, *, drawn: bool) -> np.ndarray:
    """Return response tokens of the rows of so many steps, [prompts, samples]; at least 1."""
    prompts = policy.prompts_per_step * steps
    if policy.spare_prompts:
        prompts += policy.spare_prompts * steps
    rows = prompts * spec.samples
    known = spec.response_tokens
    if drawn:
        lengths = known.drawn(rows, SEED)
    else:  # each step has the whole distribution
        each = policy.prompts_per_step * spec.samples
        quantiles = np.interp((np.arange(each) + 0.5) / each, _places(known.quantiles), known.quantiles)
        order = np.random.default_rng(SEED).permutation(each)
        lengths = np.resize(quantiles[order], rows)
    return np.maximum(lengths, 1.0).reshape(prompts, spec.samples)


def _places(quantiles: Sequence[float]) -> np.ndarray:
    return (np.arange(len(quantiles)) + 0.5) / len(quantiles)
