"""PlanCosts: what a plan costs in seconds and in bytes, as the simulators and the account of memory say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hybridflow.config.schema import Recompute, Resharding
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.plan_remarks import FULL
from hybridflow.planning.run_spec import SYNC, FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.search.step_costs import ACTOR, ROLLOUT, Costs, Need, Plan
from hybridflow.planning.seated_role import Seated
from hybridflow.planning.slot_memory import RoleBytes, stage_bytes


@dataclass
class PlanCosts(Costs):
    """Costs of plans of a run on some hardware; of each plan only what a number depends on is asked, and that once."""

    spec: RunSpec
    hardware: Hardware
    simulators: Simulators = field(init=False)
    _seconds: dict[object, float] = field(init=False, default_factory=dict)
    _syncs: dict[object, float] = field(init=False, default_factory=dict)
    _bytes: dict[object, Sequence[RoleBytes]] = field(init=False, default_factory=dict)
    _generation: dict[object, tuple[float, float]] = field(init=False, default_factory=dict)
    _specs: dict[float, RunSpec] = field(init=False, default_factory=dict)
    _models: dict[tuple[str, Recompute, int], RoleModel] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.simulators = Simulators(self.hardware)

    @property
    def device_bytes(self) -> float:
        return FULL * self.hardware.memory_bytes

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

    def _spec(self, share: float) -> RunSpec:
        """Return the run with that share of a device's memory for generation; 0: as it is."""
        if share not in self._specs:
            self._specs[share] = replace(self.spec, memory_fraction=share) if share else self.spec
        return self._specs[share]

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
