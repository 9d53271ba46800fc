"""What a plan remarks: settings that may be better, each with its key, and passes that settings leave out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor

from hybridflow.config.schema import Device
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.errors import counted
from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.estimates import SlotMemory, StepEstimate
from hybridflow.planning.run_spec import FlowCall, RunSpec, Work
from hybridflow.planning.training_cost import micro_batches
from hybridflow.planning.workload import expected_workload

GIB = 2**30
FULL = 0.95  # of a device's memory: what the allocator cannot use, and what nobody counts
IDLE = 0.5  # of a step
FEW_ROWS = 8  # of a replica on a GPU, below which a token costs what reading the weights costs, whatever its rows

OPTIMIZER = "gradients and optimizer states"
WEIGHTS = "weights"
GENERATION = "weights for generation"
KEYS_AND_VALUES = "keys and values"
ACTIVATIONS = "activations"
FRACTION = "rollout.gpu_memory_fraction"


@dataclass(frozen=True)
class Remark:
    """Remark on what to think about before the start.

    Attributes:
        key: of the setting that changes it.
        text: what was found, and what to do.
    """

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def of_memory(memory: Sequence[SlotMemory], spec: RunSpec, arrangement: Arrangement) -> Iterator[Remark]:
    """Yield pools whose slots need more than they have, or nearly."""
    for slot in (slot for slot in memory if slot.device and slot.peak > FULL * slot.device):
        phase = max(slot.phases, key=lambda name: sum(slot.phases[name].values()), default="")
        parts = {**slot.held, **{f"{phase}: {what}": size for what, size in slot.phases.get(phase, {}).items()}}
        families: dict[str, dict[str, float]] = {}
        for part, size in parts.items():
            by_role = families.setdefault(_family(part), {})
            role = part.partition(":")[0].partition(".")[0]
            by_role[role] = by_role.get(role, 0.0) + size
        largest = sorted(families, key=lambda family: -sum(families[family].values()))[:3]
        told = ", ".join(f"{family} {sum(families[family].values()) / GIB:.1f}" for family in largest)
        by_role = families[largest[0]]
        key, how = _less(largest[0], max(by_role, key=lambda role: by_role[role]), spec, arrangement)
        if key == FRACTION:
            others = slot.peak - sum(sum(families.get(own, {}).values()) for own in (KEYS_AND_VALUES, GENERATION))
            fits = floor(100 * (FULL - others / slot.device)) / 100
            how = f"{spec.memory_fraction} given, {f'at most {fits} fits' if fits > 0 else 'and others leave nothing'}"
        does = "does not fit" if slot.peak > slot.device else "hardly fits"
        yield Remark(
            key,
            f"pool {slot.pool} {does}: {slot.peak / GIB:.1f} of {slot.device / GIB:.1f} GiB of a slot"
            f"{f' in {phase}' if phase else ''}, most of it {told}; {how}",
        )


def of_flow(spec: RunSpec) -> Iterator[Remark]:
    """Yield that nothing is known of a step whose flow calls no role."""
    if not spec.flow:
        yield Remark(
            "algorithm.name",
            "its flow calls no role with rows, so nothing is known of what a step takes, and the seconds are none",
        )


def of_nodes(arrangement: Arrangement, nodes: Mapping[str, Sequence[int]]) -> Iterator[Remark]:
    """Yield roles whose tensor groups do not lie inside of a node, whose links are the fast ones."""
    for role, seat in arrangement.seats.items():
        groups = [sorted({nodes[seat.pool][rank] for rank in group}) for group in seat.layout.groups("tp")]
        if apart := [on_nodes for on_nodes in groups if len(on_nodes) > 1]:
            yield Remark(
                f"{role}.parallel.tensor",
                f"{len(apart)} of {counted(len(groups), 'tensor group')} lie across nodes, the first on "
                f"{' and '.join(map(str, apart[0]))}; tensor ranks exchange activations in every layer: give a size "
                "that divides the slots of a node",
            )


def of_idle(step: StepEstimate, spec: RunSpec, arrangement: Arrangement) -> Iterator[Remark]:
    """Yield pools with models that have nothing to do for more than half of a step."""
    seconds = step.seconds.mean
    for pool, idle in step.idle.items():
        has_models = any(role in spec.models or role == "rollout" for role in arrangement.on(pool))
        if len(arrangement.pools) == 1 or idle <= IDLE * seconds or not has_models:
            continue
        apart = "rollout" in arrangement.seats
        ways = []
        if apart and spec.schedule == "sync":
            ways.append("trainer.schedule=async lets generation and learning go on together")
        if apart and "actor" in arrangement.on(pool) and not arrangement.lends:
            ways.append("placement.lend_idle_slots=true lets it generate meanwhile")
        if arrangement.pools[pool] > 1:
            ways.append("fewer slots would do")
        ways.append("its roles may share another pool (placement.roles)")
        yield Remark(
            f"placement.pools.{pool}",
            f"{counted(arrangement.pools[pool], 'slot')} ({', '.join(arrangement.on(pool))}) idle {idle / seconds:.0%} "
            f"of a step, {idle:.3g} of {seconds:.3g} s; {'; '.join(ways)}",
        )


def of_rows(spec: RunSpec, arrangement: Arrangement, device: Device) -> Iterator[Remark]:
    """Yield generation replicas that get fewer rows than they could decode in the same time."""
    calls = [call for call in spec.flow if call.work is Work.generate]
    if not calls:
        return
    replicas = arrangement.seats[arrangement.generator].layout.replicas
    rows = max(call.rows for call in calls)
    each = rows / replicas
    enough = min(spec.max_concurrent_rows, FEW_ROWS if device is Device.gpu else 1)
    if each < enough:
        yield Remark(
            "rollout.parallel.tensor",
            f"{counted(rows, 'row')} for {counted(replicas, 'generation replica')} are {each:.3g} each, and one may "
            f"decode {spec.max_concurrent_rows} together; give fewer, larger replicas, or more rows "
            "(algorithm.prompts_per_step)",
        )


def of_pipelines(spec: RunSpec, arrangement: Arrangement) -> Iterator[Remark]:
    """Yield roles whose pipeline is empty for the larger part: of m micro-batches on p stages (p − 1) / (m + p − 1)."""
    told: set[str] = set()
    for call in spec.flow:
        if call.work not in (Work.score, Work.train) or call.role not in spec.models or call.role in told:
            continue
        layout = arrangement.seats[call.role].layout
        budget = spec.models[call.role].max_tokens_per_rank
        work = expected_workload(call, spec, layout.data, budget=budget)
        turns = max(1, micro_batches(work, budget))
        empty = (layout.pipeline - 1) / (turns + layout.pipeline - 1)
        if empty > IDLE:
            told.add(call.role)
            yield Remark(
                f"{call.role}.max_tokens_per_rank",
                f"{budget} tokens make {counted(turns, 'micro-batch', 'micro-batches')} of the {work.rows:.3g} rows "
                f"of a rank in {call.method}, so {layout.pipeline} pipeline stages stand {empty:.0%} empty; give fewer "
                f"tokens, {call.role}.parallel.pipeline fewer stages, or algorithm.minibatches fewer parts",
            )


def of_passes(named: Sequence[str], called: Sequence[str], critic_warmup_steps: int) -> Iterator[Remark]:
    """Yield what these settings leave out of the algorithm's flow.

    Args:
        named: roles of the algorithm.
        called: those of them that these settings need.
        critic_warmup_steps: in which the actor takes no update, where there is a critic.
    """
    for role in named:
        if role not in called:
            yield Remark(
                "algorithm.reward_kl_coef",
                f"{role} is not started and scores nothing, as no KL to it is used (this and "
                "algorithm.policy_loss.kl_coef are 0)",
            )
    if critic_warmup_steps and "critic" in called:
        yield Remark(
            "algorithm.critic_warmup_steps",
            f"the actor's updates in the first {counted(critic_warmup_steps, 'step')}; the step above is a later one",
        )


def of_scores(flow: Sequence[FlowCall]) -> Iterator[Remark]:
    """Yield that the rows of a first update need no pass for their old log-probs."""
    own = [call.rows for _, call in _unscored_updates(flow)]
    if own:
        scored = sum(call.rows for call in flow if call.method == "compute_log_prob")
        yield Remark(
            "algorithm.epochs",
            f"no pass gives the old log-probs of {counted(own[0], 'row')}: their update has them, as each row is "
            f"learned from once and nothing reads them before; {scored} of later minibatches are scored",
        )


def of_updates(flow: Sequence[FlowCall]) -> Iterator[Remark]:
    """Yield updates on rows without old log-probs after others, which a run would end by: its ranks refuse them."""
    generated = [place for place, call in enumerate(flow) if call.work is Work.generate]
    places = [place for place, _ in _unscored_updates(flow)]
    for first, second in pairwise(places):
        if not any(first < place < second for place in generated):
            yield Remark(
                "algorithm.name",
                "its flow calls update_actor more than once on rows without old_log_probs, whose ratio would be 1 each "
                "time, so ranks refuse the second; score the rows before, rollout |= self.actor.compute_log_prob("
                "rollout), or take those of self.minibatches and name the loss among the class's `losses`",
            )
            return


def _unscored_updates(flow: Sequence[FlowCall]) -> list[tuple[int, FlowCall]]:
    """Return updates on the policy loss whose rows bring no old log-probs, each with its place."""
    updates = [(place, call) for place, call in enumerate(flow) if call.method == "update_actor"]
    return [(place, call) for place, call in updates if OLD_LOG_PROBS not in dict(call.reads)]


def _family(part: str) -> str:
    """Return what one setting makes smaller; parts are `role: what` or `call: what`."""
    what = part.partition(": ")[2]
    if "cache" in what.lower():
        return KEYS_AND_VALUES
    if "generation" in what:
        return GENERATION
    if what in ("moments", "master weights", "gradients", "optimizer's step"):
        return OPTIMIZER
    return WEIGHTS if what == "weights" else ACTIVATIONS


def _less(family: str, role: str, spec: RunSpec, arrangement: Arrangement) -> tuple[str, str]:
    """Return the setting that makes a family of memory smaller, and how."""
    if family == KEYS_AND_VALUES:
        on_cpu = spec.kv_cache_bytes > 0
        return ("rollout.kv_cache_gib" if on_cpu else FRACTION), "give less"
    if family == GENERATION:
        return "rollout.parallel.tensor", "give more, or generation a pool of its own (placement=rollout_pool)"
    if family == OPTIMIZER:
        model = spec.models[role]
        ranks = arrangement.seats[role].layout.data
        if ranks > 1 and not model.sharded_optimizer:
            return f"{role}.optimizer.distributed", f"true shares most of that out over {ranks} data parallel ranks"
        if not model.offloads_optimizer and not spec.kv_cache_bytes:
            return f"{role}.offload.optimizer", "true moves it to the host's memory between its updates"
    if family == ACTIVATIONS:
        return f"{role}.max_tokens_per_rank", f"give less; or {role}.recompute=full, or {role}.parallel.tensor more"
    return f"{role}.parallel.tensor", f"give more, {role}.parallel.pipeline more, or the role a pool of its own"
