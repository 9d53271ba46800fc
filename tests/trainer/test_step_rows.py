"""The rows of a step that are written out: each has the old log-probs that it was learned from by, if any."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.joining import concat, stacked
from hybridflow.batch.row_source import rows_stay_here
from hybridflow.trainer.step_rows import with_old_log_probs

SAMPLES = 3


def rollout_of(prompts: int) -> BatchRef:
    """Rows of two draws, each of whose `n` is its own."""
    draws = [BatchRef.from_local(Batch(prompt=np.arange(prompts))).repeat(SAMPLES) for _ in range(2)]
    rows = stacked(draws)
    return rows | BatchRef.from_local(Batch(n=np.arange(len(rows))))


def scored(part: BatchRef) -> BatchRef:
    """A part of rows whose log-probs, as many as a row's number says, are that number."""
    numbers = part.select_columns(["n"]).get().dense("n")
    values = [[float(number)] * (number % 4) for number in numbers.tolist()]
    return part | BatchRef.from_local(Batch(old_log_probs=Ragged.of(values, np.float32)))


@given(prompts=st.integers(1, 4), seed=st.integers(0, 99), left_out=st.integers(0, 10), parts=st.integers(1, 3))
def test_each_row_has_its_own_and_one_that_was_left_out_has_none(
    prompts: int, seed: int, left_out: int, parts: int
) -> None:
    rollout = rollout_of(prompts)
    chosen = np.random.default_rng(seed).permutation(len(rollout))[min(left_out, len(rollout) - 1) :]
    own = [scored(rollout.select(rows)) for rows in np.array_split(chosen, parts) if len(rows)]
    with rows_stay_here():
        written = with_old_log_probs(rollout, own).get()
    assert written.dense("n").tolist() == [*range(len(rollout))], "all rows are written, in their order"
    for number, values in enumerate(written.ragged("old_log_probs")):
        assert values.tolist() == ([float(number)] * (number % 4) if number in chosen else [])


def test_rows_that_nobody_can_tell_apart_and_those_that_have_the_column_stay_as_they_are() -> None:
    rollout = rollout_of(2)
    assert with_old_log_probs(rollout, []) is rollout
    known = scored(rollout)
    assert with_old_log_probs(known, [known]) is known
    bare = BatchRef.from_local(Batch(n=np.arange(12)))
    assert with_old_log_probs(bare, [scored(rollout)]) is bare
    assert with_old_log_probs(rollout, [scored(bare)]) is rollout


def test_parts_of_one_step_are_known_after_they_are_joined_anew() -> None:
    rollout = rollout_of(2)
    own = [scored(rollout.slice(3, 9)), scored(rollout.slice(9, 12)), scored(rollout.slice(0, 3))]
    joined = concat([rollout.slice(6, 12), rollout.slice(0, 6)])
    with rows_stay_here():
        written = with_old_log_probs(joined, own).get()
    assert [len(row) for row in written.ragged("old_log_probs")] == [n % 4 for n in written.dense("n")]
