"""Costs that mean nothing, so that the search has nothing to lean on but what it is promised."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hybridflow.config.schema import Recompute
from hybridflow.parallel.layout import Layout
from hybridflow.planning.run_spec import FlowCall, Work
from hybridflow.planning.search.step_costs import Costs, Need, Plan

PPO = (
    FlowCall("actor", "generate_sequences", Work.generate, True, 8),
    FlowCall("reference", "compute_ref_log_prob", Work.score, True, 8, (0,)),
    FlowCall("reward", "compute_reward", Work.score, True, 8, (0,)),
    FlowCall("actor", "compute_log_prob", Work.score, False, 8, (0,)),
    FlowCall("critic", "compute_values", Work.score, False, 8, (0,)),
    FlowCall("actor", "compute_advantage", Work.rows, False, 8, (1, 2, 3, 4)),
    FlowCall("critic", "update_critic", Work.train, False, 4, (5,)),
    FlowCall("actor", "update_actor", Work.train, False, 4, (5,)),
    FlowCall("critic", "update_critic", Work.train, False, 4, (5,)),
    FlowCall("actor", "update_actor", Work.train, False, 4, (5,)),
)


@dataclass(frozen=True)
class SyntheticCosts(Costs):
    """Plans of several tensor sizes and recomputations, of random seconds and bytes that know no order."""

    seed: int
    device_bytes: float = 10.0
    per_node: int = 4
    weight: float = 8.0

    def plans(self, role: str, calls: Sequence[FlowCall], devices: int) -> Sequence[Plan]:
        generates = any(call.work is Work.generate for call in calls)
        return [
            Plan(Layout(tensor, 1, devices // tensor, generation=generation), recompute)
            for tensor in (1, 2, 4)
            if devices % tensor == 0 and tensor <= self.per_node
            for generation in ([(tensor, 1), (1, 1)] if generates and tensor > 1 else [None])
            for recompute in ((Recompute.none, Recompute.full) if tensor == 1 else (Recompute.none,))
        ]

    def need(self, role: str, calls: Sequence[FlowCall], plan: Plan) -> Need:
        scale = self.weight / plan.layout.tensor
        return Need(
            scale * self._random("held", role, plan), 0.5 * scale * self._random("peak", role, plan, len(calls))
        )

    def call_s(self, role: str, call: FlowCall, plan: Plan) -> float:
        return call.rows * self._random(role, call.method, plan) / plan.layout.size**0.7

    def sync_s(self, plan: Plan, trainers: int) -> float:
        seconds = self._random("sync", plan)
        return seconds * max(1.0, plan.layout.size / trainers) if trainers else seconds

    def least_sync_s(self, plan: Plan, devices: int) -> float:
        return self.sync_size(plan)

    def sync_size(self, plan: Plan) -> float:
        return self._random("sync", plan)

    def _random(self, *of: object) -> float:
        return _random(self.seed, of)


@cache
def _random(*of: object) -> float:
    return 0.1 + random.Random(repr(of)).random()
