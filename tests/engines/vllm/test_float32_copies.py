"""Products with float32 copies of bfloat16 weights: an exact product rounded once, and read as packed copies are."""

from __future__ import annotations

import pytest

from hybridflow.parallel.platform import platform
from tests.conftest import GetModel
from tests.engines.vllm import packed_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.usefixtures("one_vllm_a_process"),
    pytest.mark.skipif(platform().name != "cpu", reason="a GPU multiplies bfloat16 numbers"),
]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_rounded_once(bias: bool, small: bool, ranks2: Ranks) -> None:
    assert ranks2.run(rank_functions.copied_products, bias, small) == [(True, True)] * 2


def test_the_copy_takes_the_place_of_the_weight_but_in_embeddings(ranks2: Ranks) -> None:
    assert ranks2.run(rank_functions.kept_numbers) == [(0, 96 * 64)] * 2


def test_what_is_stale_or_changed_in_a_copy_shows(ranks2: Ranks) -> None:
    for told in ranks2.run(rank_functions.changed_copies):
        assert not told.pop("as written")
        assert all(told.values()), told


def test_an_engine_multiplies_with_copies_of_what_came_last(ranks2: Ranks, tiny: GetModel) -> None:
    """In bfloat16 on a CPU without instructions for it, as which this one is taken."""
    for wrong, others, copied in ranks2.run(rank_functions.received_twice, tiny(architecture="llama", tied=True)):
        assert wrong == others == []
        assert copied == ["down_proj", "gate_up_proj", "lm_head", "o_proj", "qkv_proj"]
