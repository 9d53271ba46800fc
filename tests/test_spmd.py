"""The tests' own ranks: a failure on them is told in words, soon, and the next call has new ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests import spmd
from tests.spmd import Ranks, lacking, shown

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def pair() -> Iterator[Ranks]:
    made = Ranks(2)
    yield made
    made.stop()


def process_id() -> int:
    return os.getpid()


def add(a: int, *, b: int) -> tuple[int, int, int]:
    import torch.distributed as dist

    return dist.get_rank(), dist.get_world_size(), a + b


def has_groups_in_common() -> bool:
    """Whether two workers of a layout have the same process groups."""
    from hybridflow.parallel.layout import Layout
    from hybridflow.workers import model_worker

    one, other = (model_worker.make_groups(Layout(2), 60.0) for _ in range(2))
    return one is other


def fail_on(rank: int, *, how: str) -> None:
    """One rank fails; the others wait for it in a collective."""
    import torch.distributed as dist

    if dist.get_rank() == rank:
        if how == "raise":
            raise ValueError("no good")
        if how == "exit":
            os._exit(7)
        time.sleep(600)
    dist.barrier()


def test_a_rank_has_a_gpu_of_its_own_where_there_are_any() -> None:
    assert lacking(4, gpus=2) == "needs 4 GPUs, there are 2"
    assert lacking(2, gpus=2) is None and lacking(4, gpus=0) is None


def test_a_rank_sees_its_own_gpu_only() -> None:
    """As Ray does it: who counts on seeing the others' fails here too."""
    assert [shown(rank, 2, None) for rank in (0, 1)] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert shown(1, 2, "4,GPU-5a") == {"CUDA_VISIBLE_DEVICES": "GPU-5a"}
    assert shown(1, 0, None) == {}


def test_every_rank_answers_in_order(pair: Ranks) -> None:
    assert pair.run(add, 2, b=3) == [(0, 2, 5), (1, 2, 5)]


def test_the_groups_of_a_layout_are_made_once(pair: Ranks) -> None:
    assert pair.run(has_groups_in_common) == [True, True]


@pytest.mark.parametrize(
    ("how", "timeout_s", "said"),
    [
        ("raise", 60, r"rank 1: Traceback(.|\n)*ValueError: no good"),
        ("exit", 60, r"tests\.test_spmd\.fail_on: rank 1 died with exit code 7"),
        ("sleep", 2, r"tests\.test_spmd\.fail_on: no answer from rank 0, 1 in 2 s"),
    ],
)
def test_a_failure_is_told_soon_and_stays_in_its_test(
    how: str, timeout_s: float, said: str, pair: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spmd, "GRACE_S", 1.0)
    pair.run(add, 0, b=0)
    started = time.monotonic()
    with pytest.raises(AssertionError, match=said):
        pair.run(fail_on, 1, how=how, timeout_s=timeout_s)
    assert time.monotonic() - started < 20
    assert pair.run(add, 2, b=3) == [(0, 2, 5), (1, 2, 5)]


def test_all_can_be_given_new_processes(pair: Ranks) -> None:
    before = pair.run(process_id)
    Ranks.stop_all()
    assert not set(before) & set(pair.run(process_id))
