"""Packs rows into micro-batches: no token twice and none of padding in a forward.

A row is its prompt and its response, end to end. Micro-batches are sets of rows within a token budget, in which what
rows share is there once; results come back in the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.columns import offsets_of
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.batch.row_trees import RowTrees, token_places
from hybridflow.batch.shared_prefix import shared_prefixes
from hybridflow.engines.megatron.layer_spec import Bucket, PackedRows
from hybridflow.engines.outputs import MicroBatch

WASTE = 1.25  # attention may compute this much more than the tokens of its rows before rows get a bucket of their own


@dataclass(frozen=True)
class PackedMicroBatch(MicroBatch):
    """Packed rows as the model takes them.

    Attributes:
        tokens: [1, T] int64, of each row those that it does not share with the rows before it, end to end; then a last
            row of zeros where T must be a multiple of something.
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
    """Pack `prompt_ids` and `response_ids`; each micro-batch has at most `budget` different tokens, or one unit.

    Rows that share a prefix (`hybridflow.batch.shared_prefix`) go together, others so that a micro-batch holds rows of
    like length (`RowTrees.micro_batches`).

    Args:
        rows_per_unit: so many rows that follow one another are never parted, as the two of a preference; the number of
            rows must be a multiple of it. They keep their order, and count as one row above.
        pad_to_multiple_of: what T must be a multiple of: sequence parallelism cuts T over the tensor ranks. What is
            added to reach it is not counted in the budget.

    Raises ValueError if a row has an empty prompt: its first response token would have nothing before it; and if rows
    do not share what they say.
    """
    prompts = batch.ragged("prompt_ids")
    if len(batch) and prompts.lengths.min() < 1:
        raise ValueError(f"row {int(prompts.lengths.argmin())} has an empty prompt")
    lengths = prompts.lengths + batch.ragged("response_ids").lengths
    trees = RowTrees.of(lengths, shared_prefixes(batch), rows_per_unit)
    learned = LearnedTokens.of(batch)
    return [
        _pack(trees, rows, prompts.select(rows), learned.select(rows), device, pad_to_multiple_of)
        for rows in trees.micro_batches(budget)
    ]


def _pack(
    trees: RowTrees,
    rows: np.ndarray,
    before: Ragged,
    learned: LearnedTokens,
    device: torch.device,
    pad_to_multiple_of: int,
) -> PackedMicroBatch:
    laid_out, shared = trees.layout(rows)
    lengths = trees.lengths[rows[laid_out]]
    count = int(lengths.sum() - shared.sum())
    padding = -count % pad_to_multiple_of
    if padding:
        lengths = np.append(lengths, padding)
        shared = np.append(shared, 0)
    places = token_places(lengths, shared)
    # From here on tokens are those of all rows, end to end, shared ones again and again; `place` is where each is in T.
    offsets = offsets_of(trees.lengths[rows])
    place = places.select(np.argsort(laid_out)).values
    in_row = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    response = in_row >= np.repeat(before.lengths, np.diff(offsets))
    whole = np.empty(offsets[-1], dtype=np.int64)
    whole[~response] = before.values
    whole[response] = learned.responses.values
    wanted = np.flatnonzero(response) if learned.mask is None else np.flatnonzero(response)[learned.mask]
    tokens = np.zeros(count + padding, dtype=np.int64)
    tokens[place] = whole
    positions = np.arange(count + padding) - count  # of the padding's tokens
    positions[place] = in_row
    return PackedMicroBatch(
        rows=rows,
        tokens=torch.from_numpy(tokens).to(device)[None],
        positions=torch.from_numpy(positions).to(device).expand(3, 1, -1),
        packed=packed_rows(places, shared, device),
        lengths=torch.from_numpy(learned.lengths).to(device),
        learned=learned.mask,
        logit_positions=torch.from_numpy(place[wanted - 1]).to(device),
        targets=torch.from_numpy(whole[wanted]).to(device),
        last_positions=torch.from_numpy(place[offsets[1:] - 1]).to(device),
    )


def packed_rows(places: Ragged, shared: np.ndarray, device: torch.device) -> PackedRows:
    """Prepare attention over rows.

    Args:
        places: of each row the places of its tokens in T, as `token_places` finds them.
        shared: [R] how many of them are those of the row before it.
    """
    own = places.lengths - shared
    ends = np.cumsum(own)
    # A row that is the beginning of another, or is there twice, has no tokens of its own.
    asking = np.flatnonzero(own)
    buckets = []
    orders = []
    for rows in _buckets(own[asking], shared[asking]):
        bucket, tokens = _bucket(places, shared, ends, asking[rows], device)
        orders.append(tokens)
        buckets.append(bucket)
    order = np.empty(ends[-1], dtype=np.int64)
    order[np.concatenate(orders)] = np.arange(ends[-1])
    whole = places.select(asking)
    return PackedRows(
        qkv_format="sbhd",
        cu_seqlens_q=torch.from_numpy(offsets_of(own[asking]).astype(np.int32)).to(device),
        cu_seqlens_kv=torch.from_numpy(whole.offsets.astype(np.int32)).to(device),
        max_seqlen_q=int(own.max()),
        max_seqlen_kv=int(whole.lengths.max()),
        key_tokens=torch.from_numpy(whole.values.copy()).to(device) if shared.any() else None,
        buckets=buckets,
        order=torch.from_numpy(order).to(device),
    )


def _bucket(
    places: Ragged, shared: np.ndarray, ends: np.ndarray, rows: np.ndarray, device: torch.device
) -> tuple[Bucket, np.ndarray]:
    """Prepare the attention of some rows; return their own tokens too, end to end."""
    own = places.lengths[rows] - shared[rows]
    queries, real = _padded(np.arange(ends[-1]), (ends[rows] - own), own)
    bucket = Bucket(torch.from_numpy(queries).to(device), torch.from_numpy(np.flatnonzero(real)).to(device))
    if shared[rows[0]]:
        keys, _ = _padded(places.values, places.offsets[rows], places.lengths[rows])
        before = shared[rows] if np.ptp(shared[rows]) else shared[rows[:1]]
        last = before[:, None] + np.arange(queries.shape[1])  # that each query sees
        seen = np.arange(keys.shape[1]) <= last[:, None, :, None]
        mask = np.where(seen, np.float32(0), np.float32(-np.inf))
        bucket = replace(bucket, keys=torch.from_numpy(keys).to(device), mask=torch.from_numpy(mask).to(device))
    return bucket, queries[real]


def _padded(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay runs of values out as [B, longest], and which of these places are theirs; elsewhere there is 0."""
    column = np.arange(lengths.max())
    real = column < lengths[:, None]
    return np.where(real, values[np.where(real, starts[:, None] + column, 0)], 0), real


def _buckets(own: np.ndarray, shared: np.ndarray) -> list[np.ndarray]:
    """Bucket rows from long to short, where padding to the longest does not exceed WASTE.

    Rows that share nothing are buckets of their own, since they need no mask. The others are taken by what they share
    first, in classes that are WASTE wide, so that their keys are padded little too.
    """
    width = np.ceil(np.log(np.maximum(shared, 1)) / np.log(WASTE)) + (shared > 0)
    order = np.lexsort((-own, width))
    tokens = own[order].tolist()
    classes = width[order].tolist()
    starts = [0]
    real = 0
    for place, count in enumerate(tokens):
        first = starts[-1]
        padded = tokens[first] * (place - first + 1)
        if classes[place] != classes[first] or padded > WASTE * (real + count):
            starts.append(place)
            real = 0
        real += count
    return np.split(order, starts[1:])
