"""Packing rows that share prefixes: each different token once, and each row sees its own path and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.shared_prefix import no_prefix, row_tokens
from hybridflow.engines.megatron.micro_batches import WASTE, PackedMicroBatch, micro_batches
from tests.batch.test_row_trees import GROUPS, build_groups
from tests.batch.test_shared_prefix import BRANCHES, build_tree

CPU = torch.device("cpu")
DEEP = BRANCHES.map(lambda branches: build_tree(branches)[0])
ROWS = st.one_of(GROUPS.map(build_groups), DEEP)


def begins(tokens: list[int]) -> list[tuple[int, ...]]:
    """What each token of a row is, told by all tokens up to it."""
    return [tuple(tokens[: place + 1]) for place in range(len(tokens))]


def written_out(micro: PackedMicroBatch, rows: Batch) -> dict[int, tuple[int, ...]]:
    """Of each place in T all tokens of its path: what attention lets it see, checked against its row's."""
    packed, tokens, positions = micro.packed, micro.tokens[0].tolist(), micro.positions[0, 0].tolist()
    seen: dict[int, tuple[int, ...]] = {}
    for bucket in packed.buckets:
        keys = bucket.queries if bucket.keys is None else bucket.keys
        width = bucket.queries.shape[1]
        for at in bucket.real.tolist():
            line, column = divmod(at, width)
            if bucket.mask is None:
                visible = keys[line, : column + 1]
            else:
                mask = bucket.mask[line if len(bucket.mask) > 1 else 0, 0, column]
                assert set(mask.unique().tolist()) <= {0.0, -np.inf}
                visible = keys[line][mask == 0]
            place = int(bucket.queries[line, column])
            assert place not in seen and int(visible[-1]) == place and len(visible) == positions[place] + 1
            seen[place] = tuple(tokens[key] for key in visible.tolist())
    return seen


@given(ROWS, st.integers(1, 80), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]), st.data())
def test_a_row_is_what_its_tokens_see(
    rows: Batch, budget: int, rows_per_unit: int, pad_to_multiple_of: int, data: st.DataObject
) -> None:
    rows = rows.slice(0, len(rows) - len(rows) % rows_per_unit)
    responses, whole = rows.ragged("response_ids"), [row.tolist() for row in row_tokens(rows)]
    learned = np.array(data.draw(st.lists(st.booleans(), min_size=len(responses.values), max_size=10**4)), dtype=bool)
    learned = learned[: len(responses.values)]
    mask = responses.like(learned.astype(np.int64))
    micros = micro_batches(
        rows | Batch(loss_mask=mask), budget, CPU, rows_per_unit=rows_per_unit, pad_to_multiple_of=pad_to_multiple_of
    )
    assert sorted(row for micro in micros for row in micro.rows.tolist()) == list(range(len(rows)))
    for micro in micros:
        assert micro.tokens.shape[1] % pad_to_multiple_of == 0
        seen = written_out(micro, rows)
        assert sorted(seen) == list(range(micro.tokens.shape[1]))
        picked = [mask[row].astype(bool) for row in micro.rows]
        # A token is predicted at the place that sees all before it; a row ends at the place that sees all of it.
        ends = [seen[place] for place in micro.last_positions.tolist()]
        assert ends == [tuple(whole[row]) for row in micro.rows]
        predicted = [seen[place] for place in micro.logit_positions.tolist()]
        wanted = []
        for row, chosen in zip(micro.rows.tolist(), picked, strict=True):
            prompt = len(rows.ragged("prompt_ids")[row])
            wanted += [tuple(whole[row][: prompt + place]) for place in np.flatnonzero(chosen).tolist()]
        assert predicted == wanted
        assert micro.targets.tolist() == [
            token for row, chosen in zip(micro.rows, picked, strict=True) for token in responses[row][chosen].tolist()
        ]
        assert micro.lengths.tolist() == [int(chosen.sum()) for chosen in picked]


@given(GROUPS, st.integers(1, 80))
def test_no_token_is_there_twice(groups: list[tuple[int, list[int]]], budget: int) -> None:
    rows = build_groups(groups)
    for micro in micro_batches(rows, budget, CPU):
        tokens = micro.tokens[0].tolist()
        assert len(set(tokens)) == len(tokens)


@given(ROWS, st.integers(1, 80))
def test_what_fused_attention_is_given_is_the_same(rows: Batch, budget: int) -> None:
    """Its queries are T as it is, row by row; its keys are the rows' paths, end to end."""
    for micro in micro_batches(rows, budget, CPU):
        packed, tokens = micro.packed, micro.tokens[0]
        keys = torch.arange(len(tokens)) if packed.key_tokens is None else packed.key_tokens
        asking, paths = packed.cu_seqlens_q, packed.cu_seqlens_kv
        assert asking[-1] == len(tokens) and paths[-1] == len(keys) and len(asking) == len(paths)
        assert packed.max_seqlen_q == asking.diff().max() and packed.max_seqlen_kv == paths.diff().max()
        seen = written_out(micro, rows)
        for row in range(len(asking) - 1):
            path = keys[paths[row] : paths[row + 1]].tolist()
            own = range(int(asking[row]), int(asking[row + 1]))
            assert path[len(path) - len(own) :] == [*own]
            for place in own:
                visible = path[: len(path) - len(own) + place - own.start + 1]
                assert tuple(tokens[visible].tolist()) == seen[place]


@given(GROUPS, st.integers(20, 200))
def test_rows_with_a_prefix_are_padded_little(groups: list[tuple[int, list[int]]], budget: int) -> None:
    for micro in micro_batches(build_groups(groups), budget, CPU):
        for bucket in micro.packed.buckets:
            assert bucket.queries.numel() <= WASTE * len(bucket.real)


def test_rows_that_say_that_they_share_nothing_are_packed_as_those_that_say_nothing() -> None:
    rows = build_groups([(3, [4]), (1, [9]), (6, [2])])
    silent = rows.select_columns(["prompt_ids", "response_ids"])
    for one, other in zip(
        micro_batches(rows | Batch(prefix=no_prefix(3)), 10, CPU), micro_batches(silent, 10, CPU), strict=True
    ):
        assert torch.equal(one.tokens, other.tokens) and one.rows.tolist() == other.rows.tolist()
        assert one.packed.key_tokens is None and all(bucket.mask is None for bucket in one.packed.buckets)


def test_rows_that_do_not_share_what_they_say_are_refused() -> None:
    rows = Batch(
        prompt_ids=Ragged.of([[1, 2], [3, 2]]),
        response_ids=Ragged.of([[4], [5]]),
        prefix=np.array([[7, 2], [7, 2]]),
    )
    with pytest.raises(ValueError, match="prefix of row 1"):
        micro_batches(rows, 8, CPU)
