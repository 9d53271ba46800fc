"""Packs rows into micro-batches: no token of padding in a forward.

A row is its prompt and its response, end to end. Micro-batches are runs of rows within a token budget; results come
back in the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.columns import offsets_of
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.engines.megatron.layer_spec import PackedRows
from hybridflow.engines.outputs import MicroBatch

WASTE = 1.25  # attention may compute this much more than the tokens of its rows before rows get a bucket of their own


@dataclass(frozen=True)
class PackedMicroBatch(MicroBatch):
    """Packed rows as the model takes them.

    Attributes:
        tokens: [1, T] int64, rows end to end, then a last row of zeros where T must be a multiple of something.
        positions: [3, 1, T] int64, each token's place in its row (three alike: Megatron's multimodal rotary embedding
            with one section is the one that takes a position for every token).
        packed: how T falls into rows.
        logit_positions: [N] for each learned token, end to end, the place in T of the token before it.
        last_positions: [R] the place in T of each row's last token.
    """

    tokens: Tensor
    positions: Tensor
    packed: PackedRows
    logit_positions: Tensor
    last_positions: Tensor


def micro_batches(
    batch: Batch, budget: int, device: torch.device, *, rows_per_unit: int = 1, pad_to_multiple_of: int = 1
) -> list[PackedMicroBatch]:
    """Pack `prompt_ids` and `response_ids`; each micro-batch has at most `budget` tokens, or one row.

    Rows are taken longest first, so that a micro-batch holds rows of like length.

    Args:
        rows_per_unit: so many rows that follow one another are never parted, as the two of a preference; the number of
            rows must be a multiple of it. They keep their order, and count as one row above.
        pad_to_multiple_of: what T must be a multiple of: sequence parallelism cuts T over the tensor ranks. What is
            added to reach it is not counted in the budget.

    Raises ValueError if a row has an empty prompt: its first response token would have nothing before it.
    """
    prompts = batch.ragged("prompt_ids")
    responses = batch.ragged("response_ids")
    if len(batch) and prompts.lengths.min() < 1:
        raise ValueError(f"row {int(prompts.lengths.argmin())} has an empty prompt")
    lengths = (prompts.lengths + responses.lengths).reshape(-1, rows_per_unit).sum(axis=1)
    order = np.argsort(-lengths, kind="stable")
    groups: list[list[int]] = []
    room = 0
    for unit in order.tolist():
        if lengths[unit] > room:
            groups.append([])
            room = budget
        groups[-1].append(unit)
        room -= int(lengths[unit])
    parted = [(np.array(units)[:, None] * rows_per_unit + np.arange(rows_per_unit)).reshape(-1) for units in groups]
    learned = LearnedTokens.of(batch)
    return [_pack(rows, prompts.select(rows), learned.select(rows), device, pad_to_multiple_of) for rows in parted]


def _pack(
    rows: np.ndarray, before: Ragged, learned: LearnedTokens, device: torch.device, pad_to_multiple_of: int
) -> PackedMicroBatch:
    after = learned.responses
    ends = offsets_of(before.lengths + after.lengths)[1:]
    padding = -ends[-1] % pad_to_multiple_of
    before_end = np.append(before.lengths, padding) if padding else before.lengths
    starts = offsets_of(before_end + (np.append(after.lengths, 0) if padding else after.lengths))
    in_row = np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))
    response = in_row >= np.repeat(before_end, np.diff(starts))
    tokens = np.zeros(starts[-1], dtype=np.int64)
    tokens[: ends[-1]][~response[: ends[-1]]] = before.values
    tokens[response] = after.values
    wanted = np.flatnonzero(response) if learned.mask is None else np.flatnonzero(response)[learned.mask]
    positions = torch.from_numpy(in_row).to(device).expand(3, 1, -1)
    return PackedMicroBatch(
        rows=rows,
        tokens=torch.from_numpy(tokens).to(device)[None],
        positions=positions,
        packed=packed_rows(starts, device),
        lengths=torch.from_numpy(learned.lengths).to(device),
        learned=learned.mask,
        logit_positions=torch.from_numpy(wanted - 1).to(device),
        targets=torch.from_numpy(tokens[wanted]).to(device),
        last_positions=torch.from_numpy(ends - 1).to(device),
    )


def packed_rows(starts: np.ndarray, device: torch.device) -> PackedRows:
    """Buckets for attention over rows that start at `starts` ([R + 1], from 0 to T)."""
    lengths = np.diff(starts)
    buckets = []
    orders = []
    for rows in _buckets(lengths):
        longest = lengths[rows].max()
        places = np.arange(longest)
        real = places[None] < lengths[rows][:, None]
        tokens = np.where(real, starts[:-1][rows][:, None] + places, 0)
        orders.append(tokens[real])
        buckets.append((torch.from_numpy(tokens).to(device), torch.from_numpy(np.flatnonzero(real)).to(device)))
    order = np.empty(starts[-1], dtype=np.int64)
    order[np.concatenate(orders)] = np.arange(starts[-1])
    offsets = torch.from_numpy(starts.astype(np.int32)).to(device)
    longest = int(lengths.max())
    return PackedRows(
        qkv_format="sbhd", cu_seqlens_q=offsets, cu_seqlens_kv=offsets, max_seqlen_q=longest, max_seqlen_kv=longest,
        buckets=buckets, order=torch.from_numpy(order).to(device),
    )  # fmt: skip


def _buckets(lengths: np.ndarray) -> list[np.ndarray]:
    """Bucket rows from long to short, where padding to the longest does not exceed WASTE."""
    order = np.argsort(-lengths, kind="stable")
    buckets: list[list[int]] = []
    real = 0
    for row in order.tolist():
        padded = lengths[buckets[-1][0]] * (len(buckets[-1]) + 1) if buckets else 0
        if not buckets or padded > WASTE * (real + lengths[row]):
            buckets.append([])
            real = 0
        buckets[-1].append(row)
        real += int(lengths[row])
    return [np.array(rows) for rows in buckets]
