"""SimulatedCosts: the simulators of calls and the account of memory, as the search asks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hybridflow.config.schema import Device, Recompute, Resharding
from hybridflow.engines.sharding import ShardingError, TensorSharding
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from hybridflow.planning.activation_bytes import token_bytes
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.plan_remarks import FULL
from hybridflow.planning.run_spec import SYNC, FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.search.pareto import undominated
from hybridflow.planning.search.step_costs import ACTOR, ROLLOUT, Costs, Need, Plan, PlanTable
from hybridflow.planning.seated_role import Seated
from hybridflow.planning.slot_memory import RoleBytes, stage_bytes

BUDGETS = (0.5, 1.0, 2.0, 4.0)
FRACTIONS = (0.3, 0.5, 0.7, 0.85)
PADDING = 64  # of a vocabulary on both sides of a weight sync, which shards nest in if the tensor size divides it


@dataclass
class SimulatedCosts(Costs):
    """Costs of a run on some hardware.

    Attributes:
        budgets: tokens of a micro-batch that are looked at, as multiples of those in the settings.
        fractions: of a GPU's memory for generation that are looked at, beside that in the settings.
        prunes: of the ways to generate on the same ranks, leave out those that another is at least as good as in
            seconds and in bytes.
    """

    spec: RunSpec
    hardware: Hardware
    budgets: Sequence[float] = BUDGETS
    fractions: Sequence[float] = FRACTIONS
    prunes: bool = True
    simulators: Simulators = field(init=False)
    _seconds: dict[object, float] = field(default_factory=dict)
    _syncs: dict[object, float] = field(default_factory=dict)
    _bytes: dict[object, Sequence[RoleBytes]] = field(default_factory=dict)
    _generation: dict[object, tuple[float, float]] = field(default_factory=dict)
    _specs: dict[float, RunSpec] = field(default_factory=dict)
    _models: dict[tuple[str, Recompute, int], RoleModel] = field(default_factory=dict)
    _known_passes: dict[str, Sequence[tuple[Recompute, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.simulators = Simulators(self.hardware)

    @property
    def device_bytes(self) -> float:
        return FULL * self.hardware.memory_bytes

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

    def need(self, role: str, calls: Sequence[FlowCall], plan: Plan) -> Need:
        layout = plan.layout
        share = plan.memory_fraction
        sends = role == ACTOR and self._samples and not any(call.work is Work.generate for call in calls)
        alone = self._ends(role, layout, None, plan.recompute, plan.max_tokens_per_rank, share, sends=sends)
        if layout.generation is None:
            return Need(max(end.rest for end in alone), max(end.most for end in alone))
        # What generation adds depends on the sizes alone, so it is known from any other plan of these.
        held, most = self._added(role, layout, share)
        return Need(max(end.rest for end in alone) + held, max(most, *(end.most for end in alone)))

    def call_s(self, role: str, call: FlowCall, plan: Plan) -> float:
        heeded = _heeded(call, plan)
        kinds = self._scored_kinds if call.work is Work.score else self._kinds
        key = (call.work, call.rows, call.sequences, call.balanced, kinds.get(call.role), heeded)
        if key not in self._seconds:
            tensor, pipeline, data, recompute, budget, share = heeded
            own = self._as_passed(call.role, recompute, budget) if call.role in self.spec.models else None
            layout = Layout(tensor, pipeline, data)
            asked = self.simulators.occupation(call, own, layout, self._spec(share))
            self._seconds[key] = self.simulators.shared_s(asked)
        return self._seconds[key]

    @cached_property
    def _fractions(self) -> Sequence[float]:
        """Return shares of a GPU's memory for generation; on a CPU the settings say what it has."""
        own = self.spec.memory_fraction
        on_gpu = self.hardware.device is Device.gpu and not self.spec.kv_cache_bytes
        return sorted({own, *self.fractions}) if on_gpu else (own,)

    def _spec(self, share: float) -> RunSpec:
        """Return the run with that share of a device's memory for generation; 0: as it is."""
        if share not in self._specs:
            self._specs[share] = replace(self.spec, memory_fraction=share) if share else self.spec
        return self._specs[share]

    def sync_s(self, plan: Plan, trainers: int) -> float:
        at = plan.layout
        key = (at.tensor, at.pipeline, at.data, at.generation, trainers)
        if key not in self._syncs:
            training, generation = (Layout(data=trainers), at) if trainers else (at, None)
            asked = self.simulators.sync_occupation(self._model(ACTOR), training, generation, self.spec.resharding)
            self._syncs[key] = self.simulators.shared_s(asked)
        return self._syncs[key]

    def least_sync_s(self, plan: Plan, devices: int) -> float:
        # Few trainers may be on generation's node; of those that are not, more send sooner.
        most = devices - plan.layout.size
        few = range(1, min(most, self.hardware.devices_per_node) + 1)
        return min(self.sync_s(plan, trainers) for trainers in (*few, max(most, 1)))

    def sync_size(self, plan: Plan) -> float:
        return 1.0 / (plan.layout.tensor * plan.layout.pipeline)  # share of the model that a device has

    def _added(self, role: str, layout: Layout, share: float) -> tuple[float, float]:
        """Return the bytes that generation adds to those of training: all the time, and while it is at work.

        They are those of a replica, however many there are.
        """
        key = (self._kinds[role], layout.tensor, layout.pipeline, layout.generation, share)
        if key not in self._generation:
            layout = replace(layout, data=1)
            budget = self._model(role).max_tokens_per_rank
            both = self._ends(role, layout, layout.generation, Recompute.none, budget, share)
            less = self._ends(role, layout, None, Recompute.none, budget, 0.0)
            held = max(one.rest - other.rest for one, other in zip(both, less, strict=True))
            most = max(sum(one.beside[at].values()) for one in both for at in (Work.generate, SYNC))
            self._generation[key] = held, most
        return self._generation[key]

    def _ends(
        self,
        role: str,
        layout: Layout,
        generation: tuple[int, int] | None,
        recompute: Recompute,
        budget: int,
        share: float,
        *,
        sends: bool = False,
    ) -> Sequence[RoleBytes]:
        """Return the bytes of a rank of the first stage and of one of the last; others need no more.

        Args:
            sends: generation has devices of its own, to which the role sends its weights.
        """
        apart = role == ROLLOUT
        sizes = layout.tensor, layout.pipeline, layout.data
        share = share if apart or generation is not None else 0.0  # training takes none of it
        key = (apart, self._kinds[ACTOR if apart else role], sizes, generation, recompute, budget, share, sends)
        if key not in self._bytes:
            device, memory = self.hardware.device, self.hardware.memory_bytes
            model = self._as_passed(role, recompute, budget)
            at = Layout(*sizes, generation=generation, nested=self._nested)
            seated = Seated(model, at, self._spec(share).load, device, memory, apart, sends)
            self._bytes[key] = [stage_bytes(seated, stage) for stage in dict.fromkeys((0, layout.pipeline - 1))]
        return self._bytes[key]

    def _as_passed(self, role: str, recompute: Recompute, budget: int) -> RoleModel:
        """Return a role's model that passes rows through so."""
        key = (role, recompute, budget)
        if key not in self._models:
            self._models[key] = replace(self._model(role), recompute=recompute, max_tokens_per_rank=budget)
        return self._models[key]

    def _model(self, role: str) -> RoleModel:
        return self.spec.models[ACTOR if role == ROLLOUT else role]

    def _budgets(self, model: RoleModel) -> Sequence[int]:
        """Return sizes of micro-batches; the settings' own if a row is longer than it."""
        own = model.max_tokens_per_rank
        return [int(own * times) for times in self.budgets if times == 1.0 or own * times >= self._longest]

    @cached_property
    def _kinds(self) -> Mapping[str, int]:
        """Return a number for each role with a model, the same for models that are alike."""
        models = list(self.spec.models.values())
        return {role: models.index(model) for role, model in self.spec.models.items()}

    @cached_property
    def _scored_kinds(self) -> Mapping[str, int]:
        """Return a number for each role with a model, the same for models that score in the same time."""
        models = [_as_scored(model) for model in self.spec.models.values()]
        return {role: models.index(_as_scored(model)) for role, model in self.spec.models.items()}

    @cached_property
    def _samples(self) -> bool:
        return any(call.work is Work.generate for call in self.spec.flow)

    @property
    def _nested(self) -> bool:
        return self.spec.resharding is not Resharding.hybrid_v

    @cached_property
    def _longest(self) -> float:
        return self.spec.prompt_tokens.max + self.spec.max_response_tokens


def _heeded(call: FlowCall, plan: Plan) -> tuple[int, int, int, Recompute, int, float]:
    """Return of a plan what a call depends on: sizes, recomputation, tokens of a micro-batch, generation's memory."""
    layout = plan.layout
    if call.work is Work.generate:
        tensor, pipeline = layout.generation_sizes
        return tensor, pipeline, layout.replicas, Recompute.none, 0, plan.memory_fraction
    if call.work not in (Work.score, Work.train):
        return 1, 1, layout.size, Recompute.none, 0, 0.0
    recompute = plan.recompute if call.work is Work.train else Recompute.none
    return layout.tensor, layout.pipeline, layout.data, recompute, plan.max_tokens_per_rank, 0.0


def _as_scored(model: RoleModel) -> RoleModel:
    """Return a model without what scoring does not depend on."""
    return replace(
        model, trains=False, sharded_optimizer=False, offloads_optimizer=False,
        head=model.head if model.head is Head.lm else Head.value,
    )  # fmt: skip


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
