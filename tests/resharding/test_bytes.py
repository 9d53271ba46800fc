"""A refit on real ranks: what comes out, what travels and what is alive, by every method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from hybridflow.models import read_shape
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.resharding import rank_functions
from tests.resharding.layouts import LAYOUTS, LONG, PIPELINE, TENSOR, TURNS, name
from tests.resharding.plan.simulate import generation_span, numbers, stage_weights
from tests.resharding.rank_functions import Carried

pytestmark = pytest.mark.ranks


def layout_of(layout: Layout, method: str) -> Layout:
    """The layout with the places that a method wants."""
    return replace(layout, nested=method != "hybrid_v")


def assert_taken(found: list[Carried], folder: Path, layout: Layout) -> None:
    """Each rank has what vLLM has at its place, and nothing else."""
    full, shape, (t_g, p_g) = load_file(folder / "model.safetensors"), read_shape(folder), layout.generation_sizes
    for carried, at in zip(found, layout.generation_coordinates, strict=True):
        weights = {w.name: w for w in stage_weights(shape, p_g, at.pp)}
        assert set(carried.taken) == set(weights)
        for key, weight in weights.items():
            a, b = generation_span(shape, weight, t_g, at.tp)
            assert np.array_equal(carried.taken[key], full[key].narrow(weight.axis or 0, a, b - a).numpy()), key


def received_by_formula(folder: Path, layout: Layout, method: str) -> float:
    """Table 2 of HybridFlow (arXiv 2409.19256), in bytes, of what tensor parallelism cuts."""
    model = 4 * numbers(read_shape(folder), cut=True)
    ranks, (t_g, p_g) = layout.tensor * layout.pipeline, layout.generation_sizes
    if method == "hybrid":
        return model * (ranks - t_g * p_g) / (t_g * p_g * ranks)
    return model * (ranks - 1) / ranks


# Every layout by one method; by the others a few, and all in `make test-all`.
BY_ALL = (Layout(), TENSOR, TURNS, LAYOUTS[-1])
CASES = [
    pytest.param(
        layout,
        bool(number % 2),
        method,
        id=f"{name(layout)}-{method}",
        marks=() if method == "hybrid" or layout in BY_ALL else pytest.mark.slow,
    )
    for number, layout in enumerate(LAYOUTS)
    for method in ("hybrid", "hybrid_v", "full_gather")
]


@pytest.mark.parametrize(("layout", "tied", "method"), CASES)
def test_what_travels_is_planned_and_by_the_formula(
    layout: Layout, tied: bool, method: str, ranks: GetRanks, tiny: GetModel
) -> None:
    folder, layout = tiny(vocab=128, tied=tied), layout_of(layout, method)
    found: list[Carried] = ranks(layout.size).run(rank_functions.carried_out, folder, layout, method, 400_000)
    assert_taken(found, folder, layout)
    plan = found[0].plan
    assert [carried.received for carried in found] == [plan.received[rank] for rank in range(layout.size)]
    assert [carried.sent for carried in found] == [plan.sent[rank] for rank in range(layout.size)]
    mean = sum(carried.received - plan.outside_formula[rank] for rank, carried in enumerate(found)) / layout.size
    assert mean == received_by_formula(folder, layout, method)
    assert max(carried.messages for carried in found) == plan.messages
    assert sum(plan.redundant) == 0 or method == "hybrid_v"


@pytest.mark.parametrize("method", ["hybrid", "full_gather"])
@pytest.mark.parametrize(("vocab", "generation"), [(70, 1), (97, 1), (150, 1), (150, 3)], ids=lambda value: str(value))
def test_sizes_need_not_be_powers_of_two(
    vocab: int, generation: int, method: str, ranks: GetRanks, tiny: GetModel
) -> None:
    """70 and 97 rows are padded to 192 for three tensor ranks, and for one in generation to 128."""
    layout = Layout(3, generation=(generation, 1))
    folder = tiny(vocab=vocab, layers=2, hidden=192, heads=6, kv_heads=6)
    found: list[Carried] = ranks(3).run(rank_functions.carried_out, folder, layout, method, 400_000)
    assert_taken(found, folder, layout)
    plan = found[0].plan
    assert [carried.received for carried in found] == [plan.received[rank] for rank in range(3)]


@pytest.mark.parametrize("bucket", [1, 150_000, 10**9])
@pytest.mark.parametrize("layout", [TENSOR, PIPELINE, TURNS, LONG], ids=name)
def test_two_buckets_and_a_weight_of_several_parts_are_alive_at_most(
    layout: Layout, bucket: int, ranks: GetRanks, tiny: GetModel
) -> None:
    folder = tiny(vocab=128, tied=False)
    found: list[Carried] = ranks(layout.size).run(rank_functions.carried_out, folder, layout, "hybrid", bucket)
    assert_taken(found, folder, layout)
    for rank, carried in enumerate(found):
        program = carried.plan.exchange(rank).program
        assert 4 * (program.elements + 2 * program.largest) <= carried.plan.peak
        parted = max((item.elements for item in program.items if len(item.parts) > 1), default=0)
        assert 0 < carried.peak <= 4 * (2 * program.largest + parted)


def test_the_next_bucket_travels_while_one_is_taken_in(ranks: GetRanks, tiny: GetModel) -> None:
    """The first shard comes when the first bucket is there; by then the second is on its way, and no other."""
    for begun, in_all in ranks(2).run(rank_functions.under_way, tiny(vocab=128, tied=False), TENSOR, 150_000):
        assert begun == 2 < in_all
