"""From one pool of processes to another: what arrives, what travels between whom, and what ranks are told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from hybridflow.models import read_shape
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks, starting_ranks
from tests.resharding import pool_rank_functions as rank_functions
from tests.resharding.plan.simulate import generation_span, stage_weights

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def others() -> Iterator[GetRanks]:
    """Processes of the rollout pool."""
    with starting_ranks() as get:
        yield get


def at_once(*calls: Any) -> list[Any]:
    """The results of calls that need each other."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(*call) for call in calls]]


@pytest.mark.parametrize(
    ("training", "generation", "tied", "limit"),
    [
        (Layout(2), Layout(1), False, 150_000),
        (Layout(1), Layout(2), True, 150_000),
        (Layout(2), Layout(1, 1, 2), True, 1),
        (Layout(1, 1, 2), Layout(2), False, 10**9),
        (Layout(1, 2), Layout(2), True, 150_000),
        (Layout(1, 2), Layout(1, 2), True, 150_000),
        (Layout(3), Layout(2), False, 150_000),
    ],
    ids=["tp2-1", "1-tp2", "tp2-dp2", "dp2-tp2", "pp2-tp2", "pp2-pp2", "tp3-tp2"],
)
def test_each_rank_gets_its_slices_and_nothing_else(
    training: Layout, generation: Layout, tied: bool, limit: int, ranks: GetRanks, others: GetRanks, tiny: GetModel,
    tmp_path: Path,
) -> None:  # fmt: skip
    sizes = {"hidden": 192, "heads": 6, "kv_heads": 6} if training.tensor == 3 else {"kv_heads": 4}
    folder, meeting = tiny(vocab=70, tied=tied, **sizes), tmp_path / "store"
    places = (folder, meeting, training, generation, limit)
    gave, took = at_once(
        (ranks(training.size).run, rank_functions.give, *places, [-1] * generation.size),
        (others(generation.size).run, rank_functions.take, *places),
    )
    full, shape, plan = load_file(folder / "model.safetensors"), read_shape(folder), took[0].plan
    assert len({one.identity for one in took}) == 1 and took[0].identity
    for rank, (one, at) in enumerate(zip(took, generation.coordinates, strict=True)):
        assert one.said == "" and one.version == 1
        weights = {w.name: w for w in stage_weights(shape, generation.pipeline, at.pp)}
        assert set(one.taken) == set(weights)
        for name, weight in weights.items():
            a, b = generation_span(shape, weight, generation.tensor, at.tp)
            assert np.array_equal(one.taken[name], full[name].narrow(weight.axis or 0, a, b - a).numpy()), name
        shard = sum(array.nbytes for array in one.taken.values())
        assert sum(one.received.values()) == plan.received[training.size + rank] == shard
        assert set(one.received) == set(plan.exchange(training.size + rank).givers)
        weight = max(array.nbytes for array in one.taken.values())
        assert one.peak <= 4 * 2 * plan.exchange(training.size + rank).program.largest + 2 * weight
    for rank, (_, sent, peak) in enumerate(gave):
        assert sum(sent.values()) == plan.sent.get(rank, 0)
        assert sent == {training.size + r: one.received[rank] for r, one in enumerate(took) if rank in one.received}
        assert peak <= 2 * plan.largest_bucket


def test_what_has_the_version_is_sent_nothing(
    ranks: GetRanks, others: GetRanks, tiny: GetModel, tmp_path: Path
) -> None:
    folder, training, generation = tiny(vocab=70, tied=True, kv_heads=4), Layout(2), Layout(1)
    places = (folder, tmp_path / "store", training, generation, 10**6)
    gave, _ = at_once(
        (ranks(2).run, rank_functions.give, *places, [1]),
        (others(1).run, rank_functions.linked_only, *places),
    )
    assert [sent for _, sent, _ in gave] == [{}, {}]


def test_a_spoiled_weight_stops_all_rollout_ranks(
    ranks: GetRanks, others: GetRanks, tiny: GetModel, tmp_path: Path
) -> None:
    folder, name = tiny(vocab=70, tied=True, kv_heads=4), "model.layers.1.mlp.up_proj.weight"
    places = (folder, tmp_path / "store", Layout(1), Layout(2), 10**6)
    _, took = at_once(
        (ranks(1).run, rank_functions.give, *places, [-1, -1]),
        (others(2).run, rank_functions.take, *places, name),
    )
    for one in took:
        assert f"rollout rank 0, of training ranks 0: {name}" in one.said and one.version is None


def test_unlike_plans_are_refused(ranks: GetRanks, others: GetRanks, tiny: GetModel, tmp_path: Path) -> None:
    folder = tiny(vocab=70, tied=True, kv_heads=4)
    places = (folder, tmp_path / "store", Layout(1), Layout(1))
    _, said = at_once(
        (ranks(1).run, rank_functions.plan_only, *places, 2**20),
        (others(1).run, rank_functions.plan_only, *places, 2**21),
    )
    assert "rank 1 and" in said[0] and "must be the same on all" in said[0]
