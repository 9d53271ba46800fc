"""Products of small float32 layers in vLLM keep nothing for the numbers of rows that there have been."""

from __future__ import annotations

import pytest

from hybridflow.engines.vllm.small_products import SMALL
from hybridflow.parallel.platform import platform
from tests.engines.vllm import products_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.usefixtures("one_vllm_a_process"),
    pytest.mark.skipif(platform().name != "cpu", reason="vLLM packs nothing on a GPU"),
]

MIB = 2**20


def test_a_small_layer_keeps_its_weight_and_a_large_one_is_packed(ranks1: Ranks) -> None:
    assert ranks1.run(rank_functions.kept_weights) == [{"small": True, "large": False}]


def test_a_number_of_rows_that_is_new_takes_no_memory_and_takes_some_where_the_layer_is_packed(ranks1: Ranks) -> None:
    """As long as it does, small layers are left to torch."""
    [kept] = ranks1.run(rank_functions.growth, SMALL, 100)
    [packed] = ranks1.run(rank_functions.growth, 0, 100)
    assert kept < 2 * MIB
    assert packed > 8 * MIB
