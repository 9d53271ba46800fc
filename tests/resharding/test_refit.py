"""A refit brings a version once, and a broken one leaves none."""

from __future__ import annotations

import pytest

from hybridflow.models import read_shape, table
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.resharding import rank_functions
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks


def test_versions(ranks1: Ranks, tiny: GetModel) -> None:
    folder = tiny(vocab=250)
    n = len(table(read_shape(folder)))
    [said] = ranks1.run(rank_functions.refits, folder, Layout())
    assert said == [
        ("new", True, 0, n),
        ("same", False, 0, n),
        ("next", True, 1, n),
        ("broken", None, None, 2),
        ("again", True, 2, n),
    ]


@pytest.mark.parametrize(
    ("layout", "spoiled"),
    [(Layout(2), 0), (Layout(2), 1), (Layout(2, generation=(1, 1)), 1), (Layout(1, 1, 2), -1)],
    ids=["nothing travels", "nor here", "all travels", "data parallel"],
)
def test_weights_are_identified_alike_on_all_ranks(
    layout: Layout, spoiled: int, ranks: GetRanks, tiny: GetModel
) -> None:
    """Whether they travel or not; and any bit of any of them shows on all."""
    first, other = ranks(2).run(rank_functions.identities, tiny(vocab=250), layout, spoiled)
    assert first == other and first[0] == first[1] != first[2] and all(first)
