"""Products of small float32 layers in vLLM keep nothing for the numbers of rows that there have been."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from hybridflow.parallel.platform import platform
from tests.engines.vllm import products_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.usefixtures("one_vllm_a_process"),
    pytest.mark.skipif(platform().name != "cpu", reason="vLLM packs nothing on a GPU"),
]

MIB = 2**20
COMPILED = re.compile(r"^onednn_verbose.*create:cache_miss,cpu,matmul.*,(\d+)x56:56x184", re.MULTILINE)


def test_a_small_layer_keeps_its_weight_and_a_large_one_is_packed(ranks1: Ranks) -> None:
    assert ranks1.run(rank_functions.kept_weights) == [{"small": True, "large": False}]


def test_a_number_of_rows_that_is_new_compiles_nothing_and_does_where_the_layer_is_packed() -> None:
    """As long as it does, small layers are left to torch."""
    done = subprocess.run(
        [sys.executable, "-m", rank_functions.__name__],
        env=os.environ | {"ONEDNN_VERBOSE": "2", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    before, kept, after = re.split(r"kept (\d+)\n", done.stdout)
    assert COMPILED.findall(before) == []
    assert COMPILED.findall(after) == [str(rows) for rows in range(1, 51)]
    assert int(kept) < 2 * MIB
