"""Simulators of calls: what one call on a role's ranks takes, from sizes alone (HybridFlow, section 6 and appendix C).

Scoring and training (`training_cost`), generation (`generation_cost`), a weight sync (`sync_cost`), and calls without a
model. All is arithmetic: nothing runs, and what has been asked is not computed twice.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from hybridflow.parallel.layout import Layout
from hybridflow.planning.estimates import Spread
from hybridflow.planning.generation_cost import generation_occupation
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.sync_cost import sync_ranks, sync_seconds
from hybridflow.planning.training_cost import Occupation, pass_occupation
from hybridflow.planning.workload import NINE_IN_TEN, expected_workload

Key = tuple[object, ...]


class Simulators:
    """Seconds of calls on some hardware."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self._known: dict[Key, Occupation] = {}

    def call_s(self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec) -> Spread:
        """Return the seconds of a call, if nothing runs beside it.

        Args:
            model: of its role; None: it grades.
            layout: of its role, or of the pool that generates.
        """
        mean, low, high = (
            self.shared_s(self.occupation(call, model, layout, spec, by)) for by in (0.0, -NINE_IN_TEN, NINE_IN_TEN)
        )
        return Spread(mean, min(low, mean), max(high, mean))

    def sync_s(self, model: RoleModel, training: Layout, generation: Layout | None, spec: RunSpec) -> Spread:
        """Return the seconds of a weight sync; `generation` is the layout of a pool of its own, if there is one."""
        seconds = self.shared_s(self.sync_occupation(model, training, generation))
        return Spread(seconds, seconds, seconds)

    def sync_occupation(self, model: RoleModel, training: Layout, generation: Layout | None) -> Occupation:
        """Return what a weight sync asks of its ranks."""
        key = (model, training, generation)
        if key not in self._known:
            seconds = sync_seconds(self.hardware, model, training, generation) + self.hardware.overheads.call
            self._known[key] = Occupation(seconds, sync_ranks(training, generation))
        return self._known[key]

    def occupation(
        self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec, deviations: float = 0.0
    ) -> Occupation:
        """Return what a call asks of its ranks; see `expected_workload` for `deviations`."""
        alike = replace(call, after=(), samples=True)
        lengths = (spec.prompt_tokens, spec.response_tokens, spec.samples, spec.prompts)
        engine = (spec.max_concurrent_rows, spec.kv_cache_bytes, spec.memory_fraction)
        key = (alike, model, layout, lengths, engine, deviations)
        if key not in self._known:
            self._known[key] = self._occupation(call, model, layout, spec, deviations)
        return self._known[key]

    def shared_s(self, occupation: Occupation) -> float:
        """Return the seconds of a call by itself, whose ranks share the cores of their nodes."""
        nodes = ceil(occupation.ranks / self.hardware.devices_per_node)
        cores = self.hardware.cores * nodes
        return occupation.seconds * (max(1.0, occupation.ranks / cores) if cores else 1.0)

    def _occupation(
        self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec, deviations: float
    ) -> Occupation:
        costs = self.hardware.overheads
        ranks = min(layout.size, max(call.rows, 1))
        own = costs.call + costs.row * call.rows / ranks
        if call.work is Work.rows or model is None:
            graded = costs.grade * call.rows / ranks if call.work is Work.grade else 0.0
            return Occupation(own + graded, ranks)
        if call.work is Work.generate:
            made = generation_occupation(self.hardware, call, model, layout, spec, deviations)
        else:
            made = pass_occupation(
                self.hardware, call, model, layout, expected_workload(call, spec, layout.data, deviations)
            )
        if not made.seconds:
            return made
        seconds = made.seconds + own
        return Occupation(seconds, (made.ranks * made.seconds + ranks * own) / seconds)
