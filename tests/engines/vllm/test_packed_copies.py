"""Columns of packed copies, read through vLLM's own layers on a CPU: bit for bit, in both number formats.

On a CPU without AVX-512 layers in bfloat16 have no packed copy: there they are read through the weight itself.
"""

from __future__ import annotations

import pytest
import torch

from hybridflow.parallel.platform import platform
from tests.engines.vllm import packed_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.usefixtures("one_vllm_a_process"),
    pytest.mark.skipif(platform().name != "cpu", reason="vLLM packs nothing on a GPU"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_small_layer_is_read_whole(dtype: torch.dtype, ranks2: Ranks) -> None:
    for told in ranks2.run(rank_functions.small, dtype):
        assert not told.pop("as written")
        assert all(told.values()), told


def test_of_a_large_layer_other_columns_are_read_after_each_update(ranks2: Ranks) -> None:
    for first, again, second in ranks2.run(rank_functions.large):
        assert first == again != second
        assert len(first) == 16
