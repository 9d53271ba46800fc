"""Arithmetic and bytes of a model on one rank: the products of matrices of its layers, and what attention adds.

A product of an m×k with a k×n matrix is 2·m·k·n operations, at the share of the device's that one of its size reaches,
or the time in which its three matrices are read and written, whichever is more (a roofline). All takes arrays of m.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridflow.models import Head
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import RoleModel

HIDDEN_PASSES = 16  # numbers that a layer reads and writes of each hidden one: norms, rotation, heads, sums
FFN_PASSES = 4  # and of each inner one: gate, its product
LOGIT_PASSES = 4  # times that float32 logits are written and read: log-softmax, choice or loss


def layer_parameters(model: RoleModel) -> int:
    """Count the numbers of a layer's matrices."""
    shape = model.shape
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return attention + 3 * shape.hidden * shape.ffn * model.experts


def vocabulary_parameters(model: RoleModel) -> int:
    """Count the numbers of an embedding; an output layer that is not tied to it has as many."""
    return model.shape.vocab * model.shape.hidden


def parameters(model: RoleModel) -> int:
    """Count the numbers of a model, but for its norms and biases."""
    untied = model.head is Head.lm and not model.shape.tied
    return model.shape.layers * layer_parameters(model) + (1 + untied) * vocabulary_parameters(model)


def rank_parameters(model: RoleModel, tensor: int, pipeline: int) -> float:
    """Count the numbers of the fullest rank: of the first stage, which has the embedding."""
    layers = -(-model.shape.layers // pipeline)
    both = pipeline == 1 and model.head is Head.lm and not model.shape.tied
    return (layers * layer_parameters(model) + (1 + both) * vocabulary_parameters(model)) / tensor


def expert_parameters(model: RoleModel, pipeline: int, expert: int) -> float:
    """Count the numbers of a mixture's experts on a rank of one of so many stages, where as many ranks share them out;
    0 where each tensor rank has a slice of every expert, as of all else.
    """
    if expert == 1 or model.experts == 1:
        return 0.0
    return -(-model.shape.layers // pipeline) * 3 * model.shape.hidden * model.shape.ffn * model.experts / expert


def kv_bytes(model: RoleModel, tensor: int, pipeline: int) -> float:
    """Return the bytes of a token's keys and values on a rank."""
    shape = model.shape
    layers = -(-shape.layers // pipeline)
    heads = max(1.0, shape.kv_heads / tensor)
    return 2.0 * layers * heads * shape.head_dim * model.number_bytes


def product_s(hardware: Hardware, model: RoleModel, m: Any, k: float, n: float, *, decodes: bool = False) -> Any:
    """Return the seconds of a product of matrices on one device."""
    reached = hardware.efficiency.matmul.at((m * k * n) ** (1 / 3)) * flops(hardware, model)
    size = model.number_bytes * (m * k + k * n + m * n)
    reading = hardware.memory_bytes_per_s * (hardware.efficiency.reading if decodes else 1.0)
    computed, moved = 2.0 * m * k * n / reached, size / reading
    return np.maximum(computed, moved) if isinstance(m, np.ndarray) else max(computed, moved)


def layer_s(
    hardware: Hardware, model: RoleModel, m: Any, tensor: int, expert: int = 1, *, decodes: bool = False
) -> Any:
    """Return the seconds of a layer's products on one rank, for m tokens; attention's own come on top."""
    shape = model.shape
    heads = shape.heads * shape.head_dim / tensor
    kv_heads = max(shape.kv_heads / tensor, 1.0) * shape.head_dim

    def product(rows: Any, k: float, n: float) -> Any:
        return product_s(hardware, model, rows, k, n, decodes=decodes)

    attention = product(m, shape.hidden, heads + 2 * kv_heads) + product(m, heads, shape.hidden)
    if model.experts == 1:
        ffn = shape.ffn / tensor
        return attention + product(m, shape.hidden, 2 * ffn) + product(m, ffn, shape.hidden)
    # Shared out over ranks, experts are whole and get the tokens of theirs; else each rank has a slice of every one.
    local = model.experts / expert
    ffn = shape.ffn / (tensor if expert == 1 else 1)
    chosen = m * model.active_experts / (1 if expert == 1 else tensor)
    used = local * -np.expm1(-chosen / local)  # few tokens do not read all experts
    each = chosen / used
    return attention + used * (product(each, shape.hidden, 2 * ffn) + product(each, ffn, shape.hidden))


def elementwise_s(hardware: Hardware, model: RoleModel, m: Any, tensor: int) -> Any:
    """Return the seconds of what a layer does beside products and attention, which is bound by memory."""
    inner = model.shape.ffn * model.active_experts / tensor
    hidden = model.shape.hidden / (tensor if model.sequence else 1)
    numbers = m * (HIDDEN_PASSES * hidden + FFN_PASSES * inner)
    speed = hardware.memory_bytes_per_s * hardware.caches.at(m * max(hidden, inner) * model.number_bytes)
    return numbers * model.number_bytes / speed * hardware.overheads.elementwise


def attention_s(hardware: Hardware, model: RoleModel, squares: Any, length: Any, tensor: int) -> Any:
    """Return the seconds of a layer's causal attention on one rank.

    Args:
        squares: sum of the squares of its rows' lengths.
        length: of a row, which says what share of the device's operations are reached.
    """
    shape = model.shape
    reached = hardware.efficiency.attention.at(length) * flops(hardware, model)
    return 2.0 * shape.heads * shape.head_dim / tensor * squares / reached


def head_s(hardware: Hardware, model: RoleModel, m: Any, tensor: int, *, decodes: bool = False) -> Any:
    """Return the seconds of the output layer on one rank for m tokens, and of what is made of its logits."""
    if model.head is not Head.lm:
        return m * 0.0
    vocabulary = model.shape.vocab / tensor
    logits = m * vocabulary * 4 * LOGIT_PASSES / hardware.memory_bytes_per_s
    return product_s(hardware, model, m, model.shape.hidden, vocabulary, decodes=decodes) + logits


def flops(hardware: Hardware, model: RoleModel) -> float:
    """Return what a device could do in a model's number format; in float32's if the file has no other."""
    return hardware.flops.get(model.dtype) or next(iter(hardware.flops.values()))
