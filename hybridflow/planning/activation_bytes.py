"""Bytes of activations: what a layer keeps for its backward pass, and what passes have at once beside that.

They are counted along the code of the Megatron engine, tensor by tensor: H of the hidden states, Q of the queries and K
of the keys of a rank's heads, F of its feed-forward rows, D of a head. A layer keeps

    the feed-forward's 5 F: both halves of its first product, the activated one, the other, and their product
    attention's            queries, keys and values, and what comes out: twice, where rows are padded in it; 4 D of
                           the rotation's sines and cosines, which each layer makes for itself
    two norms' and sums'   input and output; on a CPU, whose norm is put together from small operations, in float32
                           what was divided by the root of the mean square too

Recomputation of attention keeps queries, keys and values before they are padded; that of layers only their inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from hybridflow.config.schema import Device, DType, Recompute
from hybridflow.engines.logit_chunks import tokens_of_block, tokens_of_chunk
from hybridflow.planning.run_spec import RoleModel
from hybridflow.planning.stage_numbers import StageNumbers

FLOAT = 4  # bytes of what is float32 whatever the model's format


@dataclass(frozen=True)
class TokenBytes:
    """Bytes of a token of a micro-batch on one rank.

    Attributes:
        kept: by a layer, until its backward pass.
        made_again: by the one layer whose forward is repeated in its backward pass.
        forward: that a layer's forward has at once, if it keeps nothing.
        backward: that a layer's backward has at its fullest, beside what was kept.
        hidden: of the hidden states between layers.
        last: that the norm after the last layer keeps.
        last_backward: that this norm's backward has at its fullest.
        gathered: of the buffer in which sequence parallelism gathers hidden states; it is not given back.
    """

    kept: float
    made_again: float
    forward: float
    backward: float
    hidden: float
    last: float
    last_backward: float
    gathered: float


def token_bytes(model: RoleModel, tensor: int, device: Device, copied: float = 1.0) -> TokenBytes:
    """Return those of a model whose layers are cut into so many parts.

    Args:
        copied: tokens whose keys and values attention keeps, for each that is computed: rows that share a prompt have
            its keys and values each for itself.
    """
    shape = model.shape
    size = model.number_bytes
    on_cpu = device is Device.cpu
    parts = tensor if model.sequence else 1
    hidden = shape.hidden / parts
    queries = shape.heads * shape.head_dim / tensor
    keys = shape.kv_heads * shape.head_dim / tensor
    feed_forward = shape.ffn * model.active_experts / tensor
    norm = _norm(size, on_cpu)
    layer = 2 * norm * hidden + 5 * feed_forward * size + 4 * shape.head_dim * size
    if shape.qk_norm:
        layer += _norm(size, on_cpu) * (queries + keys)
    recomputed = (3 * queries + 3 * keys) * size
    attention = (3 * queries + ((0 if on_cpu else 1) + 2 * copied) * keys) * size
    kept = {
        Recompute.none: layer + attention,
        Recompute.selective: layer + recomputed,
        Recompute.full: hidden * size,
    }
    made_again = {Recompute.none: 0.0, Recompute.selective: attention, Recompute.full: layer + attention}
    return TokenBytes(
        kept=kept[model.recompute],
        made_again=made_again[model.recompute],
        forward=(5 * feed_forward + 2 * shape.hidden + 2 * hidden) * size,
        backward=_backward(shape.hidden, feed_forward, size, on_cpu),
        hidden=hidden * size,
        last=(norm - (size if size == FLOAT or not on_cpu else 0)) * hidden,
        last_backward=(4 * FLOAT if on_cpu else 2 * size) * hidden,
        gathered=shape.hidden * size if parts > 1 else 0.0,
    )


def _norm(size: int, on_cpu: bool) -> float:
    """Return the bytes of a number of the hidden states that a norm and the sum before it keep."""
    if not on_cpu:
        return 2 * size  # input and output
    return 3 * FLOAT if size == FLOAT else 2 * FLOAT + size  # and the normalized one; the input as float32


def _backward(hidden: float, feed_forward: float, size: int, on_cpu: bool) -> float:
    """Return the bytes of a token in the feed-forward's backward pass: at its activation, or at its last product.

    A CPU without bfloat16 instructions has float32 copies of that product's factors (`hybridflow.parallel.bf16`). They
    are planned for on any CPU: where a plan is made says little of where it runs.
    """
    activation = (hidden + 2 * feed_forward) * size
    product = (hidden + feed_forward) * (size + FLOAT)
    return max(activation, product) if on_cpu and size < FLOAT else activation


def logit_bytes(stage: StageNumbers, hidden: int, device: Device, tokens: float) -> float:
    """Return the bytes of a chunk's logits, and of what is made of a block of them, for so many tokens of a batch."""
    if not stage.output:
        return 0.0
    rows = stage.output // hidden
    block = tokens_of_block(rows, accelerated=device is not Device.cpu)
    return FLOAT * (min(tokens, tokens_of_chunk(rows)) + min(tokens, block)) * rows


def output_bytes(stage: StageNumbers, model: RoleModel, device: Device, tokens: float, learned: float) -> float:
    """Return the bytes of the last stage's forward beside its last layer: hidden states as float32, logits."""
    if not stage.output:
        return tokens * model.shape.hidden * FLOAT
    narrow = model.dtype is not DType.float32
    size = FLOAT * model.shape.hidden * (learned + (tokens if narrow else 0))
    size += FLOAT * stage.output if narrow and device is Device.cpu else 0  # products want a float32 weight there
    return size + logit_bytes(stage, model.shape.hidden, device, learned)


def output_gradient_bytes(stage: StageNumbers, model: RoleModel, device: Device, learned: float) -> float:
    """Return the bytes of the last stage's backward of its logits."""
    if not stage.output:
        return 2 * learned * model.shape.hidden * FLOAT
    narrow = model.dtype is not DType.float32
    size = 2 * FLOAT * model.shape.hidden * learned  # hidden states and their gradient
    size += FLOAT * stage.output  # the weight's gradient
    if narrow:
        on_cpu = device is Device.cpu
        size += FLOAT * stage.output if on_cpu else logit_bytes(stage, model.shape.hidden, device, learned) / 2
    return size + logit_bytes(stage, model.shape.hidden, device, learned)
