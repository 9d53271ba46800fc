"""Memory of slots: the bytes of tensors that a placement keeps on each, by what they are for and by phase.

Roles of a pool share its slots. Each keeps something there between its calls, and has more while one of them runs:
`role_bytes`, which a search asks for many times. A slot is at its fullest in the call that has most beside what all
roles keep: `slot_memory`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, floor
from typing import NamedTuple

from hybridflow.config.schema import Device
from hybridflow.parallel.layout import Layout
from hybridflow.planning import activation_bytes
from hybridflow.planning.activation_bytes import FLOAT, WIDTHS, TokenBytes, token_bytes
from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.estimates import SlotMemory
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import Load, RoleModel, RunSpec, Work
from hybridflow.planning.stage_numbers import StageNumbers, generation_numbers, training_numbers
from hybridflow.resharding.plan.buckets import BUCKET_BYTES

SYNC = "sync_weights"
PREFILLED = 4096  # tokens of prompts that vLLM takes at once on a CPU, for each rank of a replica
LOGIT_COPIES = 3.0  # times that a row's logits are there where it is sampled
Bytes = Mapping[str, float]


@dataclass(frozen=True)
class RoleBytes:
    """Bytes of a role on one rank.

    Attributes:
        kept: between its calls, by what it is.
        beside: what it has beside that, by the kind of work that a call gives it, and in a weight sync.
    """

    kept: Bytes
    beside: Mapping[str, Bytes]

    @cached_property
    def rest(self) -> float:
        """Return the bytes between its calls."""
        return sum(self.kept.values())

    @cached_property
    def most(self) -> float:
        """Return the most bytes that a call has beside those."""
        return max((sum(one.values()) for one in self.beside.values()), default=0.0)

    @property
    def peak(self) -> float:
        """Return the bytes that a slot needs which has this role alone."""
        return self.rest + self.most


class Seated(NamedTuple):
    """A role, its layout, and what the bytes of its ranks depend on besides.

    Attributes:
        memory: bytes of the device; 0: not known.
        only_generates: its pool is generation's own, and its layout that of its replicas.
        sends: generation has a pool of its own, to which it sends its weights.
    """

    model: RoleModel
    layout: Layout
    load: Load
    device: Device
    memory: float
    only_generates: bool
    sends: bool = False

    @property
    def state_ranks(self) -> int:
        """Return how many ranks share out an optimizer's state."""
        return self.layout.data * self.layout.context if self.model.sharded_optimizer else 1

    @property
    def width(self) -> int:
        """Return the bytes of a number in the model's format."""
        return WIDTHS[self.model.dtype]

    def micro_batch(self, rows: int) -> tuple[float, float]:
        """Return the tokens of the largest micro-batch of a call with so many rows, and how many a rank has."""
        model, layout, load = self.model, self.layout, self.load
        own = max(ceil(rows / layout.data), 1) * load.row_tokens
        budget = max(float(model.max_tokens_per_rank), load.longest)
        if load.alike:
            budget = floor(budget / load.row_tokens) * load.row_tokens
        tokens = min(own, budget)
        return tokens / layout.context, ceil(own / tokens)


def role_bytes(
    model: RoleModel,
    layout: Layout,
    spec: RunSpec,
    hardware: Hardware | None = None,
    *,
    only_generates: bool = False,
) -> RoleBytes:
    """Return the bytes of a role on its fullest rank.

    A pool's slot takes at most the `rest` of all its roles, and the `most` of the one that has most.

    Args:
        only_generates: of a role whose pool is generation's own; its layout is that of its replicas.

    Raises ShardingError for sizes that the model does not allow.
    """
    return _fullest(Seated(model, layout, spec.load, *_device(spec, hardware), only_generates))


def slot_memory(spec: RunSpec, arrangement: Arrangement, hardware: Hardware | None) -> tuple[SlotMemory, ...]:
    """Return the fullest slot of each pool. Raises ShardingError as `role_bytes`.

    Roles without a model are processes without tensors; a pool of such has nothing.
    """
    return tuple(_fullest_slot(pool, spec, arrangement, hardware) for pool in arrangement.pools)


def _device(spec: RunSpec, hardware: Hardware | None) -> tuple[Device, float]:
    if hardware is not None:
        return hardware.device, hardware.memory_bytes
    return (Device.cpu if spec.kv_cache_bytes else Device.gpu), 0.0


def pool_bytes(spec: RunSpec, arrangement: Arrangement, pool: str) -> float:
    """Return the bytes of all slots of a pool of CPUs, each at its fullest."""
    return sum(slot.peak * count for slot, count in _slots(pool, spec, arrangement, Device.cpu, 0.0))


def _fullest_slot(pool: str, spec: RunSpec, arrangement: Arrangement, hardware: Hardware | None) -> SlotMemory:
    device, memory = _device(spec, hardware)
    slots = (slot for slot, _ in _slots(pool, spec, arrangement, device, memory))
    return max(slots, key=lambda slot: slot.peak, default=SlotMemory(pool, {}, {}, memory))


def _slots(
    pool: str, spec: RunSpec, arrangement: Arrangement, device: Device, memory: float
) -> Iterator[tuple[SlotMemory, int]]:
    """Yield the slots that differ, by the stages of the roles that are on them, and how many there are of each."""
    here = {
        role: Seated(
            spec.models["actor" if role == "rollout" else role],
            arrangement.seats[role].layout,
            spec.load,
            device,
            memory,
            role == "rollout",
            role == "actor" and arrangement.generator == "rollout",
        )
        for role in arrangement.on(pool)
        if role in spec.models or role == "rollout"
    }
    places = zip(*(role.layout.coordinates for role in here.values()), strict=False)
    for stages, count in Counter(tuple(at.pp for at in place) for place in places).items():
        found = {name: stage_bytes(role, stage) for (name, role), stage in zip(here.items(), stages, strict=True)}
        yield SlotMemory(pool, _kept(found), _phases(spec, arrangement, found), memory), count


def _kept(found: Mapping[str, RoleBytes]) -> Bytes:
    return {f"{role}: {what}": size for role, own in found.items() for what, size in own.kept.items() if size}


def _phases(spec: RunSpec, arrangement: Arrangement, found: Mapping[str, RoleBytes]) -> dict[str, Bytes]:
    """Return the phases of a step in its order: its calls on roles that are here, and the weight sync."""
    phases: dict[str, Bytes] = {}
    for call in spec.flow:
        at_work = [call.role]
        if call.work is Work.generate and call.role == "actor":
            at_work = [arrangement.generator, *["actor"] * arrangement.lends]
        for role in at_work:
            if role in found and call.work in found[role].beside:
                phases[f"{call.role}.{call.method}"] = found[role].beside[call.work]
    syncs = [own.beside[SYNC] for own in found.values() if SYNC in own.beside]
    return phases | ({SYNC: max(syncs, key=lambda sync: sum(sync.values()))} if syncs else {})


@lru_cache(maxsize=2**17)
def _fullest(role: Seated) -> RoleBytes:
    ends = dict.fromkeys((0, role.layout.pipeline - 1))
    return max((stage_bytes(role, stage) for stage in ends), key=lambda one: one.peak)


def stage_bytes(role: Seated, stage: int) -> RoleBytes:
    """Return the bytes of a role on a rank of one of its pipeline stages."""
    kept: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {}
    if not role.only_generates:
        _add_training(kept, beside, role, stage)
    if role.only_generates or role.layout.generation is not None:
        _add_generation(kept, beside, role, stage)
    return RoleBytes(kept, beside)


# Training.


def _add_training(kept: dict[str, float], beside: dict[str, dict[str, float]], role: Seated, stage: int) -> None:
    model, layout, load = role.model, role.layout, role.load
    numbers = training_numbers(model.engine, model.shape, layout.tensor, layout.pipeline, model.head)[stage]
    count = numbers.weights + _more_experts(role, numbers)
    weights = {"weights": float(count * role.width)}
    state = _state(role, count) if model.trains else {}
    offloads = role.device is not Device.cpu  # which has nowhere to move it
    weights_away = weights if offloads and model.offloads_weights else {}
    state_away = state if offloads and model.offloads_optimizer else {}
    kept |= {} if weights_away else weights
    kept |= {} if state_away else state
    tokens = token_bytes(model, layout.tensor, role.device)
    if tokens.gathered:
        kept["gathered activations"] = tokens.gathered * role.micro_batch(max(load.trained, load.scored))[0]
    if load.scored:
        beside[Work.score] = {**weights_away, **_scoring(role, tokens, numbers)}
    if model.trains:
        beside[Work.train] = {**weights_away, **state_away, **_learning(role, tokens, stage, numbers, count)}
    if layout.generation is not None or role.sends:
        beside[SYNC] = dict(weights_away)
    if role.sends:
        beside[SYNC]["buckets"] = _two_buckets(role, numbers.weights, max(numbers.embedding, numbers.output))


def _more_experts(role: Seated, numbers: StageNumbers) -> int:
    """Count the numbers of a mixture's experts beside the one that the model's shape has."""
    model, layout = role.model, role.layout
    one = 3 * model.shape.hidden * model.shape.ffn
    own = model.experts * one // max(layout.expert, layout.tensor)
    return numbers.layers * (own - one // layout.tensor) if model.experts > 1 else 0


def _state(role: Seated, count: int) -> Bytes:
    """Return what belongs to a model that learns: float32 gradients, AdamW's moments, and weights as float32."""
    share = count / role.state_ranks
    state = {"gradients": float(FLOAT * count), "moments": 2 * FLOAT * share}
    return state | ({"master weights": FLOAT * share} if role.width < FLOAT else {})


def _scoring(role: Seated, of_token: TokenBytes, numbers: StageNumbers) -> dict[str, float]:
    """Return what a forward without gradients has at its fullest: in a layer, or at its output."""
    tokens, _ = role.micro_batch(role.load.scored)
    layer = of_token.forward * tokens
    output = activation_bytes.output_bytes(numbers, role.model, role.device, tokens, role.load.learned * tokens)
    return {"logits": output} if numbers.output and output > layer else {"activations": layer}


def _learning(role: Seated, of_token: TokenBytes, stage: int, numbers: StageNumbers, count: int) -> dict[str, float]:
    """Return what a step has at its fullest: at the logits, in the backward pass of the last norm or layer of a
    micro-batch, at the end of that pass, or in the optimizer.
    """
    tokens, micros = role.micro_batch(role.load.trained)
    pipeline = role.layout.pipeline
    last = stage == pipeline - 1
    one = tokens * (numbers.layers * of_token.kept + of_token.hidden)
    layers = one * min(pipeline - stage, micros)
    whole = layers + (tokens * of_token.last if last else 0.0)  # the norm after them is the first to go
    tied = float(numbers.output * role.width) if numbers.tied else 0.0  # its gradient waits for the embedding's
    backward = tokens * (of_token.made_again + of_token.backward) + tied
    cases = [
        {"activations": layers, "backward of a layer": backward},
        {"activations": layers - one, "gradients of embeddings": tied + numbers.embedding * role.width},
        {"optimizer's step": _update(role, numbers, count)},
    ]
    if last:
        cases.append({"activations": whole, "logits": _at_output(role, numbers, tokens)})
        cases.append({"activations": whole, "backward of a norm": tokens * of_token.last_backward + tied})
    return max(cases, key=lambda case: sum(case.values()))


def _at_output(role: Seated, numbers: StageNumbers, tokens: float) -> float:
    learned = role.load.learned * tokens
    forward = activation_bytes.output_bytes(numbers, role.model, role.device, tokens, learned)
    return max(forward, activation_bytes.output_gradient_bytes(numbers, role.model, role.device, learned))


def _update(role: Seated, numbers: StageNumbers, count: int) -> float:
    """Return what AdamW has beside its state: on a CPU for a parameter at a time, else for all of them together."""
    share = count / role.state_ranks
    if role.device is Device.cpu:
        return 2 * FLOAT * min(numbers.largest, share)
    return FLOAT * share


# Generation.


def _add_generation(kept: dict[str, float], beside: dict[str, dict[str, float]], role: Seated, stage: int) -> None:
    model, layout, load = role.model, role.layout, role.load
    tensor, pipeline = layout.generation_sizes
    numbers = generation_numbers(load.generation_engine, model.shape, tensor, pipeline)
    own = numbers[stage * pipeline // layout.pipeline]
    weights = {"generation's weights": float(role.width * own.weights)}
    sync = beside.setdefault(SYNC, {})
    if buckets := _buckets(role, own):
        sync["buckets"] = max(buckets, sync.get("buckets", 0.0))
    if role.device is Device.cpu:  # nothing sleeps there, and products read packed copies of weights
        kept |= weights
        # Linear layers give their weights up for packed ones. Embeddings keep theirs, also one that no product reads.
        kept["generation's packed embeddings"] = float(role.width * (own.embedding + own.output))
        kept["KV cache"] = load.kv_cache_bytes / (tensor * pipeline)
        beside[Work.generate] = _decoding(role, own)
        sync["packing"] = float(role.width * max(own.output, own.fused))
        return
    free = role.memory * load.memory_fraction - weights["generation's weights"]
    caches = max(free, 0.0) if role.memory else _needed_cache(role)
    beside[Work.generate] = weights | {"KV cache and activations": caches}
    sync |= weights


def _decoding(role: Seated, own: StageNumbers) -> dict[str, float]:
    """Return what generation has at its fullest on a CPU: a layer over as many prompts as vLLM takes at once, or the
    logits that rows are sampled from, and what is made of them.
    """
    tensor, pipeline = role.layout.generation_sizes
    shape, load = role.model.shape, role.load
    prompts = load.concurrent * load.row_tokens * (1 - load.learned)
    tokens = min(prompts, PREFILLED * tensor * pipeline)
    layer = tokens * role.width * (3 * shape.ffn / tensor + 2 * shape.hidden)
    logits = LOGIT_COPIES * FLOAT * load.concurrent * own.output / shape.hidden
    return {"logits": logits} if logits > layer else {"activations": layer}


def _needed_cache(role: Seated) -> float:
    """Return the bytes of keys and values of as many rows as a replica decodes together, of the mean length."""
    tensor, pipeline = role.layout.generation_sizes
    shape = role.model.shape
    heads = max(shape.kv_heads / tensor, 1.0)
    token = 2 * role.width * ceil(shape.layers / pipeline) * heads * shape.head_dim
    rows = ceil(max(role.load.trained, role.load.scored) / role.layout.replicas)
    return token * min(role.load.concurrent, rows) * role.load.row_tokens


def _buckets(role: Seated, own: StageNumbers) -> float:
    """Return the bytes of the buckets in which weights arrive."""
    layout = role.layout
    if not role.only_generates and layout.generation_sizes == (layout.tensor, layout.pipeline):
        return 0.0  # each rank has all that it generates with
    whole = 1 if layout.nested else layout.generation_sizes[0]  # each gathers the model, where places do not nest
    return _two_buckets(role, own.weights, max(own.embedding, own.output) * whole)


def _two_buckets(role: Seated, weights: int, largest: int) -> float:
    """Return the bytes of two buckets that are under way; a weight larger than a bucket is one of its own."""
    return min(float(role.width * weights), max(BUCKET_BYTES, role.width * largest) + BUCKET_BYTES)
