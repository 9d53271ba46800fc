"""Rows are chosen by what ranks report of them; none is fetched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.algorithms.row_filtering import kept_rows
from hybridflow.batch import Batch, BatchRef, Metadata, Ragged
from hybridflow.batch.joining import concat
from hybridflow.batch.row_source import REPORTED
from hybridflow.config.schema import AlgorithmConfig, ComponentConfig
from hybridflow.runtime.messages import Report
from hybridflow.tasks.grades import GRADES, learnable

UNEQUAL = replace(AlgorithmConfig(), rollout_filter=ComponentConfig("unequal_groups"))
OVERLONG = replace(AlgorithmConfig(), rollout_filter=ComponentConfig("overlong"))


class FarChunk:
    """Rows on a rank: what is known of them comes in a report, and the test fails if they are fetched."""

    def __init__(self, batch: Batch) -> None:
        self._report = Report((Metadata.of(batch),)).encode()

    def metadata(self) -> Metadata:
        return Report.decode(self._report).chunks[0]

    def get(self) -> Batch:
        raise AssertionError("the controller fetched rows")


def far(batch: Batch) -> BatchRef:
    return BatchRef.from_chunk(FarChunk(batch), len(batch), batch.columns)


def build_rollout(rewards: list[float], *, samples: int = 2, masks: list[list[int]] | None = None) -> BatchRef:
    """Rows with these rewards in groups, over two chunks; every third reached the limit."""
    count = len(rewards)
    truncated = np.arange(count) % 3 == 2
    words = [[7] * (1 + row % 3) for row in range(count)]
    columns = {"response_ids": Ragged.of(words, np.int64), "truncated": truncated}
    if masks is not None:
        columns["loss_mask"] = Ragged.of(masks, np.int8)
    sampled, graded = Batch(**columns), Batch(rewards=np.array(rewards, np.float32))
    parts = [far(sampled.slice(a, b)) | far(graded.slice(a, b)) for a, b in ((0, count // 2), (count // 2, count))]
    return concat(parts).for_call(group_id=np.arange(count) // samples)


def test_groups_of_equal_rewards_go() -> None:
    assert kept_rows(build_rollout([1, 1, 0, 1, 0, 0]), UNEQUAL).tolist() == [2, 3]


def test_what_reached_the_limit_goes() -> None:
    assert kept_rows(build_rollout([1, 1, 0, 1, 0, 0]), OVERLONG).tolist() == [0, 1, 3, 4]


def test_a_row_without_a_grade_or_a_token_to_learn_from_is_no_member_of_its_group() -> None:
    masks = [[1], [1, 0], [0, 0, 1], [0], [1, 1], [0, 1, 1]]
    rewards = [1, np.nan, 0, 1, 0, 1]
    assert kept_rows(build_rollout(rewards, masks=masks), UNEQUAL).tolist() == [4, 5]
    assert kept_rows(build_rollout(rewards), UNEQUAL).tolist() == [2, 3, 4, 5]


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.lists(st.integers(0, 1), max_size=3)), max_size=9))
def test_reports_say_what_the_rows_do(rows: list[tuple[float, list[int]]]) -> None:
    batch = Batch(
        rewards=np.array([reward for reward, _ in rows], np.float32),
        loss_mask=Ragged.of([mask for _, mask in rows], np.int8),
    )
    ref = far(batch)
    usable = np.isfinite(ref.numbers("rewards")) & (ref.numbers("loss_mask") > 0)
    assert usable.tolist() == learnable(batch).tolist()
    order = np.arange(len(rows))[::-1]
    assert ref.select(order).numbers("loss_mask").tolist() == ref.numbers("loss_mask")[order].tolist()


def test_every_grade_is_reported() -> None:
    assert {*GRADES, "truncated"} <= {*REPORTED}


def test_a_grade_that_is_no_number_is_told() -> None:
    texts = far(Batch(rewards=np.array(["good", "bad"], dtype=object)))
    with pytest.raises(KeyError, match="column 'rewards' is object; one number a row was expected"):
        texts.numbers("rewards")
    with pytest.raises(KeyError, match="no column 'costs' whose numbers could be known; there are rewards"):
        texts.numbers("costs")
