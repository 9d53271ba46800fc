"""Bytes of generation on a rank: its weights, its cache of keys and values, and what a weight sync brings them in."""

from __future__ import annotations

from math import ceil

from hybridflow.config.schema import Device
from hybridflow.planning.activation_bytes import FLOAT
from hybridflow.planning.run_spec import SYNC, Work
from hybridflow.planning.seated_role import Seated, two_buckets
from hybridflow.planning.stage_numbers import StageNumbers, generation_numbers

PREFILLED = 4096  # tokens of prompts that vLLM takes at once on a CPU, for each rank of a replica
LOGIT_COPIES = 3.0  # of a row where it is sampled: vLLM's sampler has logits, their log-softmax and their softmax


def add_generation(kept: dict[str, float], beside: dict[str, dict[str, float]], role: Seated, stage: int) -> None:
    """Add what a rank of a stage has for generation: all the time, while it generates, and in a weight sync."""
    model, layout, load = role.model, role.layout, role.load
    tensor, pipeline = layout.generation_sizes
    numbers = generation_numbers(load.generation_engine, model.shape, tensor, pipeline)
    own = numbers[stage * pipeline // layout.pipeline]
    weights = {"generation's weights": _weights(role, own)}
    sync = beside.setdefault(SYNC, {})
    if buckets := _buckets(role, own):
        sync["buckets"] = max(buckets, sync.get("buckets", 0.0))
    if role.device is Device.cpu:  # nothing sleeps there, and products read packed copies of weights
        kept |= weights
        # Linear layers give their weights up for packed ones, embeddings keep them. vLLM packs all embeddings.
        packed = own.output if _copies_float32(role) else own.embedding + own.output
        kept["generation's packed embeddings"] = float(FLOAT * packed)
        kept["KV cache"] = load.kv_cache_bytes / (tensor * pipeline)
        beside[Work.generate] = _decoding(role, own)
        sync["packing"] = float(FLOAT * max(own.output, own.fused))
        return
    free = role.memory * load.memory_fraction - weights["generation's weights"]
    caches = max(free, 0.0) if role.memory else _needed_cache(role)
    beside[Work.generate] = weights | {"KV cache and activations": caches}
    sync |= weights


def _copies_float32(role: Seated) -> bool:
    """Tell whether products are with float32 copies, as of bfloat16 weights without bfloat16 instructions.

    They are planned for on any CPU: where a plan is made says little of where it runs.
    """
    return role.device is Device.cpu and role.width < FLOAT


def _weights(role: Seated, own: StageNumbers) -> float:
    """Return the bytes of weights, packed or not: those of linear layers in the format that they are multiplied in."""
    embeddings = own.embedding + (0 if own.tied else own.output)
    size = FLOAT if _copies_float32(role) else role.width
    return float(role.width * embeddings + size * (own.weights - embeddings))


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
    return two_buckets(role, own.weights, max(own.embedding, own.output) * whole)
