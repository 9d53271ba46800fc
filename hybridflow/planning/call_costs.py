"""Simulators of calls: what one call on a role's ranks takes, from sizes alone (HybridFlow, section 6 and appendix C).

Scoring and training (`training_cost`), generation (`generation_cost`), a weight sync (`sync_cost`), and calls without a
model. All is arithmetic: nothing runs, and what has been asked is not computed twice.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from hybridflow.config.schema import Resharding
from hybridflow.parallel.layout import Layout
from hybridflow.planning.estimates import Spread
from hybridflow.planning.generation_cost import drawn_occupation, generation_occupation
from hybridflow.planning.hardware import Hardware, slowness
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
        self._spreads: dict[Key, Spread] = {}
        self._specs: list[RunSpec] = []
        self._numbers: dict[int, int] = {}
        self._alike: dict[Key, int] = {}

    def call_s(self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec) -> Spread:
        """Return the seconds of a call, if nothing runs beside it.

        Args:
            model: of its role; None: it grades.
            layout: of its role, or of the pool that generates.
        """
        key = self._key(call, model, layout, spec, 0.0)
        if key not in self._spreads:
            asked = [self.occupation(call, model, layout, spec, by) for by in (0.0, -NINE_IN_TEN, NINE_IN_TEN)]
            mean, low, high = map(self.shared_s, asked)
            self._spreads[key] = Spread(mean, min(low, mean), max(high, mean))
        return self._spreads[key]

    def sync_s(self, model: RoleModel, training: Layout, generation: Layout | None, spec: RunSpec) -> Spread:
        """Return the seconds of a weight sync; `generation` is the layout of a pool of its own, if there is one."""
        seconds = self.shared_s(self.sync_occupation(model, training, generation, spec.resharding))
        return Spread(seconds, seconds, seconds)

    def sync_occupation(
        self,
        model: RoleModel,
        training: Layout,
        generation: Layout | None,
        method: Resharding = Resharding.hybrid,
    ) -> Occupation:
        """Return what a weight sync asks of its ranks."""
        key = (model, training, generation, method)
        if key not in self._known:
            seconds = sync_seconds(self.hardware, model, training, generation, method) + self.hardware.overheads.call
            self._known[key] = Occupation(seconds, sync_ranks(training, generation))
        return self._known[key]

    def occupation(
        self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec, deviations: float = 0.0
    ) -> Occupation:
        """Return what a call asks of its ranks; see `expected_workload` for `deviations`."""
        key = self._key(call, model, layout, spec, deviations)
        if key not in self._known:
            self._known[key] = self._occupation(call, model, layout, spec, deviations)
        return self._known[key]

    def generation(
        self, call: FlowCall, model: RoleModel, layout: Layout, spec: RunSpec, lengths: np.ndarray
    ) -> Occupation:
        """Return what a call that generates rows of these lengths asks of its ranks, [rows]."""
        made = drawn_occupation(self.hardware, call, model, layout, spec, lengths)
        return self._with_call(call, layout, made)

    def _key(self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec, deviations: float) -> Key:
        alike = (call.role, call.method, call.work, call.rows, call.sequences, call.balanced)
        return (alike, model, layout, self._number(spec), deviations)

    def _number(self, spec: RunSpec) -> int:
        """Return a number for all that calls are asked of a run: to compare its lengths at every call would take long.

        The runs are kept, so that no other gets the place in memory of one that was asked about.
        """
        if id(spec) not in self._numbers:
            lengths = (spec.prompt_tokens, spec.response_tokens, spec.samples, spec.prompts)
            engine = (spec.max_concurrent_rows, spec.kv_cache_bytes, spec.memory_fraction, spec.shares_prompts)
            self._specs.append(spec)
            self._numbers[id(spec)] = self._alike.setdefault((lengths, engine), len(self._alike))
        return self._numbers[id(spec)]

    def shared_s(self, occupation: Occupation) -> float:
        """Return the seconds of a call by itself, whose ranks share the cores of their nodes."""
        nodes = ceil(occupation.ranks / self.hardware.devices_per_node)
        cores = self.hardware.cores * nodes
        return occupation.seconds * slowness(occupation.ranks, cores, self.hardware.busy)

    def _occupation(
        self, call: FlowCall, model: RoleModel | None, layout: Layout, spec: RunSpec, deviations: float
    ) -> Occupation:
        costs = self.hardware.overheads
        if call.work is Work.rows or model is None:
            ranks = min(layout.size, call.rows)
            return Occupation(costs.call + costs.grade * call.rows / ranks if ranks else 0.0, ranks)
        if call.work is Work.generate:
            made = generation_occupation(self.hardware, call, model, layout, spec, deviations)
        else:
            work = expected_workload(call, spec, layout.data, deviations, model.max_tokens_per_rank)
            made = pass_occupation(self.hardware.crowded(layout.size), call, model, layout, work)
        return self._with_call(call, layout, made)

    def _with_call(self, call: FlowCall, layout: Layout, made: Occupation) -> Occupation:
        """Add what a call takes besides: from the controller and back, and for its rows to be fetched and packed."""
        if not call.rows:
            return Occupation(0.0, 0.0)
        ranks = min(layout.size, call.rows)
        own = self.hardware.overheads.call + self.hardware.overheads.row * call.rows / ranks
        seconds = made.seconds + own
        return Occupation(seconds, (made.ranks * made.seconds + ranks * own) / seconds if seconds else 0.0)
