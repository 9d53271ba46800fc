"""SimulatedCosts: the simulators of calls and the account of memory, as the search asks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hybridflow.config.schema import Recompute
from hybridflow.engines.sharding import ShardingError, TensorSharding
from hybridflow.parallel.layout import Layout
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.plan_remarks import FULL
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.search.step_costs import ACTOR, ROLLOUT, Need, Plan
from hybridflow.planning.slot_memory import SYNC, RoleBytes, Seated, stage_bytes

BUDGETS = (0.5, 1.0, 2.0, 4.0)


@dataclass
class SimulatedCosts:
    """Costs of a run on some hardware.

    Attributes:
        budgets: tokens of a micro-batch that are looked at, as multiples of those in the settings.
    """

    spec: RunSpec
    hardware: Hardware
    budgets: Sequence[float] = BUDGETS
    simulators: Simulators = field(init=False)
    _seconds: dict[object, float] = field(default_factory=dict)
    _bytes: dict[object, Sequence[RoleBytes]] = field(default_factory=dict)
    _generation: dict[object, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.simulators = Simulators(self.hardware)

    @property
    def device_bytes(self) -> float:
        return FULL * self.hardware.memory_bytes

    def plans(self, role: str, calls: Sequence[FlowCall], devices: int) -> Sequence[Plan]:
        model = self._model(role)
        per_node = self.hardware.devices_per_node
        return [
            Plan(layout, recompute, budget)
            for layout in layouts(model, devices, per_node, nests=role != ROLLOUT and _samples(calls))
            for recompute in (Recompute if model.trains and role != ROLLOUT else (Recompute.none,))
            for budget in (self._budgets(model) if role != ROLLOUT else (model.max_tokens_per_rank,))
        ]

    def need(self, role: str, calls: Sequence[FlowCall], plan: Plan) -> Need:
        layout = plan.layout
        alone = self._ends(role, layout, None, plan.recompute, plan.max_tokens_per_rank)
        if layout.generation is None:
            return Need(max(end.rest for end in alone), max(end.most for end in alone))
        # What generation adds depends on the sizes alone, so it is known from any other plan of these.
        held, most = self._added(role, layout)
        return Need(max(end.rest for end in alone) + held, max(most, *(end.most for end in alone)))

    def call_s(self, role: str, call: FlowCall, plan: Plan) -> float:
        heeded = _heeded(call, plan)
        key = (call.work, call.rows, call.sequences, call.balanced, self._kinds.get(call.role), heeded)
        if key not in self._seconds:
            tensor, pipeline, data, recompute, budget = heeded
            model = self.spec.models.get(call.role)
            own = model and replace(model, recompute=recompute, max_tokens_per_rank=budget)
            layout = Layout(tensor, pipeline, data)
            self._seconds[key] = self.simulators.shared_s(self.simulators.occupation(call, own, layout, self.spec))
        return self._seconds[key]

    def sync_s(self, plan: Plan, trainers: int) -> float:
        model = self._model(ACTOR)
        training, generation = (Layout(data=trainers), plan.layout) if trainers else (plan.layout, None)
        return self.simulators.shared_s(self.simulators.sync_occupation(model, training, generation))

    def least_sync_s(self, plan: Plan, devices: int) -> float:
        # Few trainers may be on generation's node; of those that are not, more send sooner.
        most = devices - plan.layout.size
        few = range(1, min(most, self.hardware.devices_per_node) + 1)
        return min(self.sync_s(plan, trainers) for trainers in (*few, max(most, 1)))

    def sync_size(self, plan: Plan) -> float:
        return 1.0 / (plan.layout.tensor * plan.layout.pipeline)  # share of the model that a device has

    def _added(self, role: str, layout: Layout) -> tuple[float, float]:
        """Return the bytes that generation adds to those of training: all the time, and while it is at work."""
        key = (self._kinds[role], layout.tensor, layout.pipeline, layout.data, layout.generation)
        if key not in self._generation:
            budget = self._model(role).max_tokens_per_rank
            both = self._ends(role, layout, layout.generation, Recompute.none, budget)
            less = self._ends(role, layout, None, Recompute.none, budget)
            held = max(one.rest - other.rest for one, other in zip(both, less, strict=True))
            self._generation[key] = (
                held,
                max(sum(one.beside[at].values()) for one in both for at in (Work.generate, SYNC)),
            )
        return self._generation[key]

    def _ends(
        self, role: str, layout: Layout, generation: tuple[int, int] | None, recompute: Recompute, budget: int
    ) -> Sequence[RoleBytes]:
        """Return the bytes of a rank of the first stage and of one of the last; others need no more."""
        sizes = layout.tensor, layout.pipeline, layout.data
        key = (role == ROLLOUT, self._kinds[ACTOR if role == ROLLOUT else role], sizes, generation, recompute, budget)
        if key not in self._bytes:
            device, memory = self.hardware.device, self.hardware.memory_bytes
            model = replace(self._model(role), recompute=recompute, max_tokens_per_rank=budget)
            at = Layout(*sizes, generation=generation)
            seated = Seated(model, at, self.spec.load, device, memory, role == ROLLOUT)
            self._bytes[key] = [stage_bytes(seated, stage) for stage in dict.fromkeys((0, layout.pipeline - 1))]
        return self._bytes[key]

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
    def _longest(self) -> float:
        return self.spec.prompt_tokens.max + self.spec.max_response_tokens


def _heeded(call: FlowCall, plan: Plan) -> tuple[int, int, int, Recompute, int]:
    """Return of a plan what a call depends on: sizes, recomputation and the tokens of a micro-batch."""
    layout = plan.layout
    if call.work is Work.generate:
        tensor, pipeline = layout.generation_sizes
        return tensor, pipeline, layout.replicas, Recompute.none, 0
    if call.work not in (Work.score, Work.train):
        return 1, 1, layout.size, Recompute.none, 0
    recompute = plan.recompute if call.work is Work.train else Recompute.none
    return layout.tensor, layout.pipeline, layout.data, recompute, plan.max_tokens_per_rank


def by_plan(model: RoleModel, plan: Plan) -> RoleModel:
    """Return a role's model as a plan runs it."""
    return replace(model, recompute=plan.recompute, max_tokens_per_rank=plan.max_tokens_per_rank)


def layouts(model: RoleModel, devices: int, per_node: int, *, nests: bool) -> Iterator[Layout]:
    """Yield the layouts of a model on so many devices whose tensor ranks share a node, as its matrices divide.

    Args:
        nests: with all sizes of generation on the same ranks.
    """
    for tensor in divisors(min(devices, per_node)):
        for pipeline in divisors(devices // tensor) if devices % tensor == 0 else ():
            if not _divides(model, tensor, pipeline):
                continue
            data = devices // tensor // pipeline
            if not nests:
                yield Layout(tensor, pipeline, data)
                continue
            for t_g in divisors(tensor):
                for p_g in divisors(pipeline):
                    yield Layout(tensor, pipeline, data, generation=(t_g, p_g))


def _divides(model: RoleModel, tensor: int, pipeline: int) -> bool:
    try:
        TensorSharding(model.shape, tensor, pipeline)
    except ShardingError:
        return False
    return True


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, ascending."""
    return [one for one in range(1, number + 1) if number % one == 0]


def _samples(calls: Sequence[FlowCall]) -> bool:
    return any(call.work is Work.generate for call in calls)
