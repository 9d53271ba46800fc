"""Rows go out to ranks and come back, whatever their number, order and chunks; the controller never holds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.controller import Group, put
from hybridflow.dispatch import Result
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks


def rows_of(count: int) -> Batch:
    """`n` and ragged `words`, with rows of no words among them."""
    return Batch(n=np.arange(count), words=Ragged.of([[n] * (n % 3) for n in range(count)], np.int64))


@pytest.fixture
def scribe(stage: Stage) -> Group:
    return stage.start_role("scribe")


@pytest.mark.parametrize("count", [0, 1, 3, 4, 11])
def test_any_number_of_rows_comes_back_in_order(scribe: Group, count: int) -> None:
    found = scribe.double(put(rows_of(count)))
    assert len(found) == count and found.columns == ("double", "by")
    if count:
        assert found.get().dense("double").tolist() == [2 * n for n in range(count)]
        assert len(set(found.get().dense("by").tolist())) == min(count, 4)


def test_a_rank_without_rows_knows_what_its_columns_are_like(scribe: Group) -> None:
    rows = put(rows_of(2))
    longer = scribe.lengthen(rows)
    assert [row.tolist() for row in longer.get().ragged("longer")] == [[0], [1, 1]]
    # Again from a column of which some chunks have no rows at all, and with rows that lie in one chunk only.
    last = rows.select([1])
    last |= scribe.double(last)
    assert [row.tolist() for row in scribe.lengthen(last).get().ragged("longer")] == [[1, 1]]
    assert scribe.columns(last | longer.select([1])).get() == [["by", "double", "longer", "n", "words"]] * 4


def test_permuted_and_repeated_rows(scribe: Group) -> None:
    order = np.random.default_rng(0).permutation(11)
    rows = put(rows_of(11)).select(order).repeat(3).select(np.arange(33)[::-1])
    found = (rows | scribe.double(rows)).get()
    wanted = np.repeat(order, 3)[::-1]
    assert found.dense("n").tolist() == wanted.tolist()
    assert found.dense("double").tolist() == (2 * wanted).tolist()


def test_groups_are_not_split(scribe: Group) -> None:
    rows = put(rows_of(5)).repeat(3)
    found = (rows | scribe.double(rows)).get()
    owners = found.dense("by").reshape(5, 3)
    assert (owners == owners[:, :1]).all() and len(np.unique(owners)) == 4


def test_groups_that_a_user_numbered_are_not_split(scribe: Group) -> None:
    """The first rank would have four rows if they were dealt by their number; rows of no group are alone."""
    group = np.array([4, 4, 4, 4, 4, 4, 7, 2, 2, 2])
    rows = put(rows_of(10) | Batch(group_id=group))
    assert (
        rows.driver_columns["group_id"].tolist() == group.tolist()
        and rows.get().dense("group_id").tolist() == group.tolist()
    )
    owners = (rows | scribe.double(rows)).get().dense("by")
    assert [len(set(owners[group == number])) for number in (4, 7, 2)] == [1, 1, 1] and len(set(owners)) == 3


def test_a_union_of_columns_in_different_chunks(stage: Stage, scribe: Group) -> None:
    two_replicas = stage.start_role("scribe", Layout(tensor=2, data=2))
    rows = put(rows_of(9))
    rows |= scribe.double(rows)  # in four chunks
    rows |= two_replicas.sum_words(rows)  # in two
    rows = rows.select([8, 1, 1, 5, 0, 7])
    rows |= scribe.lengthen(rows)
    found = rows.get()
    n = np.array([8, 1, 1, 5, 0, 7])
    assert found.dense("double").tolist() == (2 * n).tolist()
    assert found.dense("sums").tolist() == (n * (n % 3)).tolist()
    assert [row.tolist() for row in found.ragged("longer")] == [[k] * (k % 3 + 1) for k in n.tolist()]


def test_only_what_a_method_reads_travels(scribe: Group) -> None:
    rows = put(rows_of(4))
    assert scribe.columns(rows).get() == [["n", "words"]] * 4
    assert scribe.columns_needed(rows).get() == [["n"]] * 4
    rows |= scribe.double(rows)
    assert scribe.columns_needed(rows).get() == [["double", "n"]] * 4


def test_columns_that_are_not_declared_are_learned_from_the_ranks(scribe: Group) -> None:
    found = scribe.undeclared(put(rows_of(6)))
    assert found.columns == ("found",) and found.get().dense("found").tolist() == [1, 2, 3, 4, 5, 6]


def test_a_missing_column_names_who_gives_it(scribe: Group) -> None:
    with pytest.raises(HybridFlowError, match=r"scribe\.double wants columns .*: 'n' is given by no role"):
        scribe.double(put(Batch(m=np.arange(3))))
    with pytest.raises(HybridFlowError, match=r"'words' is given by no role that is known"):
        scribe.lengthen(put(Batch(n=np.arange(3))))


def test_a_missing_column_of_ours_names_its_giver(stage: Stage) -> None:
    from hybridflow.roles import givers

    assert "reward.compute_reward" in givers("rewards") and "actor.compute_log_prob" in givers("old_log_probs")


def test_an_unknown_method_names_the_known(scribe: Group) -> None:
    with pytest.raises(AttributeError, match=r"role 'scribe' has no method 'triple'; it has double, sum_words"):
        scribe.triple(put(rows_of(1)))


def test_a_protocol_that_forgets_a_rank(scribe: Group) -> None:
    with pytest.raises(HybridFlowError, match=r"scribe\.forget_one: .*'one_too_few' gave 3 calls for 4 ranks"):
        scribe.forget_one()


def test_light_ranks_load_no_torch(scribe: Group) -> None:
    assert scribe.loaded("torch").get() == [False] * 4
    assert scribe.loaded("numpy").get() == [True] * 4  # the question can be answered with yes


def test_a_call_returns_before_its_ranks_are_done(scribe: Group, tmp_path: Path) -> None:
    """A call that waited would wait for ever: its ranks go on when all calls have returned."""
    rows = scribe.patient(put(rows_of(4)), file=str(tmp_path / "go"))
    rows |= scribe.double(put(rows_of(4)))
    result = scribe.measure(rows | put(rows_of(4)))
    assert isinstance(result, Result)
    (tmp_path / "go").touch()
    assert result.get() is None


def test_a_pool_starts_when_its_rows_are_there(stage: Stage, new_stage: Callable[..., Stage]) -> None:
    """B's first call has its rows and runs while A works; its second has to wait for A's."""
    a, b = stage.start_role("scribe"), new_stage(1, stage.supervisor).start_role("scribe")
    rows = put(rows_of(4))
    from_a = a.slow(rows, seconds=1.0)
    free = b.slow(rows, seconds=0.1)
    bound = b.columns(rows | from_a)
    assert bound.get() == [["ended", "n", "started", "words"]]
    ended = from_a.get().dense("ended").max()
    assert free.get().dense("ended").max() < ended < time.time()
