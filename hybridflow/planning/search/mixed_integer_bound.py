"""Bound on what any allocation can cost, by a mixed-integer program of its own: the search shares no code with it.

For every set of a partition a binary variable says which of its ways to run is taken; the ends of calls are continuous,
and each is at least those that it waits for and its own seconds. The sum of devices is bounded, the step's end is
minimized. HiGHS gives a lower bound whether or not it comes to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import highspy
import numpy as np

from hybridflow.planning.search.set_options import SetOptions
from hybridflow.planning.search.step_shape import Kind, StepShape, kind_of


class _QuietHighs(highspy.Highs):
    """HiGHS that says nothing, also as it is made: in 1.16 it writes its name when its callbacks are."""

    def enableCallbacks(self) -> None:  # noqa: N802 (its own name)
        self.silent()
        super().enableCallbacks()


def lower_bound(
    shape: StepShape, sets: Sequence[SetOptions], devices: int, above: float = inf, limit_s: float = 20.0
) -> float:
    """Return seconds that no choice of a way for every set is below.

    Args:
        above: nothing that takes more is of interest; it is returned if there is nothing else.
        limit_s: for HiGHS, after which it gives the bound that it has by then.
    """
    solver = _QuietHighs()
    solver.setOptionValue("threads", 1)  # as many give other ways to the same bound, and so other times
    solver.setOptionValue("time_limit", limit_s)
    solver.setOptionValue("mip_rel_gap", 1e-9)
    solver.setOptionValue("mip_abs_gap", 0.0)
    parts, counts = [], []
    for one in sets:
        taken = [solver.addBinary() for _ in one.devices]
        solver.addConstr(solver.qsum(taken) == 1)
        parts.append([_weighted(solver, one.seconds[:, group], taken) for group in range(one.seconds.shape[1])])
        counts.append(_weighted(solver, one.devices, taken))
    solver.addConstr(solver.qsum(counts) <= devices)
    end = solver.addVariable(lb=0.0, ub=above)
    _add_step(solver, shape, parts, end)
    solver.minimize(end)
    if solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return above
    return min(above, max(0.0, float(solver.getInfo().mip_dual_bound)))  # it is -inf where time was too short for any


def _weighted(solver: highspy.Highs, weights: np.ndarray, taken: Sequence[Any]) -> Any:
    return solver.qsum(float(weight) * one for weight, one in zip(weights, taken, strict=True))


def _add_step(solver: highspy.Highs, shape: StepShape, parts: Sequence[Sequence[Any]], end: Any) -> None:
    """Let `end` be at least the seconds of the step."""
    if not shape.overlaps:
        _add_calls(solver, shape, parts, end, range(len(shape.flow)))
        return
    longer, sync = solver.addVariable(lb=0.0), solver.addVariable(lb=0.0)
    for kind, least in ((Kind.sampling, longer), (Kind.learning, longer), (Kind.sync, sync)):
        calls = [place for place, call in enumerate(shape.flow) if kind_of(call) is kind]
        _add_calls(solver, shape, parts, least, calls)
    for owner, groups in enumerate(shape.segments):
        busy = [
            parts[owner][number]
            for number, group in enumerate(groups)
            if kind_of(shape.flow[group[0]]) is not Kind.sync
        ]
        if busy:
            solver.addConstr(longer >= solver.qsum(busy))
    solver.addConstr(end >= longer + sync)


def _add_calls(
    solver: highspy.Highs, shape: StepShape, parts: Sequence[Sequence[Any]], end: Any, calls: Sequence[int]
) -> None:
    ends: dict[int, Any] = {}
    last: dict[int, int] = {}
    for place in calls:
        owner = shape.owners[place]
        group = next((number for number, one in enumerate(shape.segments[owner]) if one[0] == place), None)
        seconds = 0.0 if group is None else parts[owner][group]
        ends[place] = solver.addVariable(lb=0.0)
        before = {other for other in (*shape.flow[place].after, last.get(owner, -1)) if other in ends}
        solver.addConstr(ends[place] - seconds >= 0.0)
        for other in before:
            solver.addConstr(ends[place] - ends[other] - seconds >= 0.0)
        solver.addConstr(end >= ends[place])
        last[owner] = place
