"""SimulatedCosts: the plans of roles, and what they cost by the simulators, as the search asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hybridflow.config.schema import Device, Recompute
from hybridflow.engines.sharding import ShardingError, TensorSharding
from hybridflow.parallel.layout import Layout
from hybridflow.planning.activation_bytes import token_bytes
from hybridflow.planning.run_spec import SYNC, FlowCall, RoleModel, Work
from hybridflow.planning.search.pareto import undominated
from hybridflow.planning.search.plan_costs import PlanCosts
from hybridflow.planning.search.step_costs import ROLLOUT, Plan, PlanTable

BUDGETS = (0.5, 1.0, 2.0, 4.0)
FRACTIONS = (0.3, 0.5, 0.7, 0.85)
PADDING = 64  # of a vocabulary on both sides of a weight sync, which shards nest in if the tensor size divides it


@dataclass
class SimulatedCosts(PlanCosts):
    """Plans that the roles of a run have on some hardware, with what they cost.

    Attributes:
        budgets: tokens of a micro-batch that are looked at, as multiples of those in the settings.
        fractions: of a GPU's memory for generation that are looked at, beside that in the settings.
        prunes: leave out plans that another is at least as good as: of the ways to generate on the same ranks those
            that are better in neither seconds nor bytes, and recomputation that saves no memory.
    """

    budgets: Sequence[float] = BUDGETS
    fractions: Sequence[float] = FRACTIONS
    prunes: bool = True
    _known_passes: dict[str, Sequence[tuple[Recompute, int]]] = field(init=False, default_factory=dict)

    def plans(self, role: str, calls: Sequence[FlowCall], devices: int) -> Sequence[Plan]:
        cuts = self.cuts(role, devices)
        if role == ROLLOUT:
            own = self._model(role).max_tokens_per_rank
            return [Plan(cut, Recompute.none, own, share) for cut in cuts for share in self._fractions]
        return [
            Plan(layout, recompute, budget, share)
            for cut in cuts
            for layout, share in self._ways(role, calls, cut)
            for recompute, budget in self._passes(role)
        ]

    def cuts(self, role: str, devices: int) -> Sequence[Layout]:
        """Return the sizes in which a role can run on so many devices."""
        return list(layouts(self._model(role), devices, self.hardware.devices_per_node))

    def table(self, role: str, calls: Sequence[FlowCall], devices: int, most: int) -> PlanTable:
        if role == ROLLOUT:
            return super().table(role, calls, devices, most)
        ways: list[tuple[Layout, float]] = []
        numbers = [np.empty((0, 2 + len(calls)))]
        for cut in self.cuts(role, devices):
            mine = self._ways(role, calls, cut)
            ways += mine
            numbers.append(self._block(role, calls, cut, mine))
        rows = np.concatenate(numbers)
        kept = np.flatnonzero(rows[:, 0] + rows[:, 1] <= self.device_bytes)
        passes = self._passes(role)

        def plan(place: int) -> Plan:
            way, own = divmod(int(kept[place]), len(passes))
            layout, share = ways[way]
            return Plan(layout, *passes[own], share)

        return PlanTable(plan, rows[kept])

    def _block(
        self, role: str, calls: Sequence[FlowCall], cut: Layout, ways: Sequence[tuple[Layout, float]]
    ) -> np.ndarray:
        """Return the numbers of a layout's plans: of every way to generate in it with every way to pass rows through.

        Each number depends on one of the two alone, so few are asked for.
        """
        passes = [Plan(cut, recompute, budget) for recompute, budget in self._passes(role)]
        needs = np.array([tuple(self.need(role, calls, plan)) for plan in passes])
        columns = [needs[:, 0][None], needs[:, 1][None]]
        if ways[0][0].generation is not None:
            added = np.array([self._added(role, layout, share) for layout, share in ways])
            columns = [columns[0] + added[:, :1], np.maximum(columns[1], added[:, 1:])]
        generating = [Plan(layout, memory_fraction=share) for layout, share in ways]
        known: dict[tuple[str, str, int], np.ndarray] = {}  # calls of a step that are alike, as its updates
        for call in calls:
            alike = call.role, call.method, call.rows
            if alike not in known:
                if call.method == SYNC:
                    known[alike] = np.array([[self.sync_s(plan, 0)] for plan in generating])
                elif call.work is Work.generate:
                    known[alike] = np.array([[self.call_s(role, call, plan)] for plan in generating])
                else:
                    known[alike] = np.array([[self.call_s(role, call, plan) for plan in passes]])
            columns.append(known[alike])
        shape = len(ways), len(passes)
        return np.stack([np.broadcast_to(column, shape).reshape(-1) for column in columns], axis=1)

    def _ways(self, role: str, calls: Sequence[FlowCall], cut: Layout) -> Sequence[tuple[Layout, float]]:
        """Return how ranks can generate that train in a layout; of a role that does not generate the layout alone."""
        samples = any(call.work is Work.generate for call in calls)
        return self._ways_to_generate(role, calls, cut) if samples else [(cut, 0.0)]

    def _passes(self, role: str) -> Sequence[tuple[Recompute, int]]:
        """Return how rows can be passed through a role's model: what is computed again, and a micro-batch's tokens."""
        if role not in self._known_passes:
            model = self._model(role)
            again = [one for one in Recompute if one is Recompute.none or self._saves(model, one)]
            self._known_passes[role] = [(one, budget) for one in again for budget in self._budgets(model)]
        return self._known_passes[role]

    def _saves(self, model: RoleModel, recompute: Recompute) -> bool:
        """Tell whether computing something again is worth a look: it takes longer, so it has to save memory."""
        if not model.trains or not self.prunes:
            return model.trains
        kept = [
            token_bytes(replace(model, recompute=one), 1, self.hardware.device).kept
            for one in (recompute, Recompute.none)
        ]
        return kept[0] < kept[1]

    def _ways_to_generate(self, role: str, calls: Sequence[FlowCall], cut: Layout) -> Sequence[tuple[Layout, float]]:
        """Return how ranks that train in a layout can generate: their sizes then, and the share of the memory."""
        tensor, pipeline, data = cut.tensor, cut.pipeline, cut.data
        ways = [
            (Layout(tensor, pipeline, data, generation=(t_g, p_g), nested=self._nested), share)
            for t_g in (divisors(tensor) if PADDING % tensor == 0 else (1,))
            for p_g in divisors(pipeline)
            for share in self._fractions
        ]
        if not self.prunes:
            return ways
        generated = [call for call in calls if call.work is Work.generate]
        rows = [
            [
                *self._added(role, layout, share),
                self.sync_s(Plan(layout), 0),
                *(self.call_s(role, call, Plan(layout, memory_fraction=share)) for call in generated),
            ]
            for layout, share in ways
        ]
        return [ways[place] for place in np.sort(undominated(np.array(rows)))]

    @cached_property
    def _fractions(self) -> Sequence[float]:
        """Return shares of a GPU's memory for generation; on a CPU the settings say what it has."""
        own = self.spec.memory_fraction
        on_gpu = self.hardware.device is Device.gpu and not self.spec.kv_cache_bytes
        return sorted({own, *self.fractions}) if on_gpu else (own,)

    def _budgets(self, model: RoleModel) -> Sequence[int]:
        """Return sizes of micro-batches; the settings' own if a row is longer than it."""
        own = model.max_tokens_per_rank
        return [int(own * times) for times in self.budgets if times == 1.0 or own * times >= self._longest]

    @cached_property
    def _longest(self) -> float:
        return self.spec.prompt_tokens.max + self.spec.max_response_tokens


def by_plan(model: RoleModel, plan: Plan) -> RoleModel:
    """Return a role's model as a plan runs it."""
    return replace(model, recompute=plan.recompute, max_tokens_per_rank=plan.max_tokens_per_rank)


def layouts(model: RoleModel, devices: int, per_node: int) -> Iterator[Layout]:
    """Yield the layouts of a model on so many devices whose tensor ranks share a node, as its matrices divide."""
    for tensor in divisors(min(devices, per_node)):
        for pipeline in divisors(devices // tensor) if devices % tensor == 0 else ():
            if _divides(model, tensor, pipeline):
                yield Layout(tensor, pipeline, devices // tensor // pipeline)


def _divides(model: RoleModel, tensor: int, pipeline: int) -> bool:
    try:
        TensorSharding(model.shape, tensor, pipeline)
    except ShardingError:
        return False
    return True


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, ascending."""
    return [one for one in range(1, number + 1) if number % one == 0]
