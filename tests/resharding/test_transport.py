"""The transition on real ranks: what arrives is exactly the slice of the whole weight, by every way of cutting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hybridflow.models import read_shape
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import reference
from tests.resharding import rank_functions
from tests.resharding.layouts import LAYOUTS, TENSOR, name
from tests.resharding.plan.simulate import generation_span, stage_weights

pytestmark = pytest.mark.ranks


def check(found: list[dict[str, np.ndarray]], folder: Path, layout: Layout, dtype: torch.dtype) -> None:
    """Each rank has all weights of its generation stage, and no other, cut as its place in generation says."""
    full, shape = load_file(folder / "model.safetensors"), read_shape(folder)
    t_g, p_g = layout.generation_sizes
    for rank, arrays in enumerate(found):
        at = layout.generation_coordinate(rank)
        expected = {w.name: w for w in stage_weights(shape, p_g, at.pp)}
        assert set(arrays) == set(expected)
        for key, weight in expected.items():
            a, b = generation_span(shape, weight, t_g, at.tp)
            part = full[key].narrow(weight.axis or 0, a, b - a).to(dtype).float().numpy()
            assert arrays[key].shape == part.shape and np.array_equal(arrays[key], part), (rank, key)


MODELS: dict[str, dict[str, object]] = {"untied": {"vocab": 250}, "tied": {"vocab": 70, "tied": True}}
# Every layout with one of the models; with the other in `make test-all`.
CASES = [
    pytest.param(
        layout, MODELS[model], id=f"{name(layout)}-{model}", marks=pytest.mark.slow if (number + other) % 2 else ()
    )
    for number, layout in enumerate(LAYOUTS)
    for other, model in enumerate(MODELS)
]


@pytest.mark.parametrize(("layout", "options"), CASES)
def test_shards_are_slices_of_the_whole(
    layout: Layout, options: dict[str, object], ranks: GetRanks, tiny: GetModel
) -> None:
    """250 rows are uneven on two ranks once padded, 70 more so: their parts are of two sizes."""
    folder = tiny(**options)
    check(ranks(layout.size).run(rank_functions.shards, folder, layout, 20_000), folder, layout, torch.float32)


@pytest.mark.parametrize("bucket", [1, 10**9])
def test_buckets_do_not_change_what_arrives(bucket: int, ranks: GetRanks, tiny: GetModel) -> None:
    folder, layout = tiny(vocab=70, tied=True), TENSOR
    check(ranks(2).run(rank_functions.shards, folder, layout, bucket), folder, layout, torch.float32)


def test_a_rank_without_a_row_of_the_vocabulary_gives_none(ranks: GetRanks, tiny: GetModel, tmp_path: Path) -> None:
    folder, layout = reference.cut_vocabulary(tiny(vocab=70, tied=True), 14, tmp_path), TENSOR
    check(ranks(2).run(rank_functions.shards, folder, layout, 20_000), folder, layout, torch.float32)


def test_shards_travel_in_the_format_of_generation(ranks: GetRanks, tiny: GetModel) -> None:
    folder, layout = tiny(vocab=250), TENSOR
    check(ranks(2).run(rank_functions.shards, folder, layout, 10**6, "bfloat16"), folder, layout, torch.bfloat16)
