"""Loading and writing on real ranks: each reads the bytes of its own parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel
from tests.engines.megatron import rank_functions
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_rank_reads_the_bytes_of_its_parameters(tied: bool, ranks4: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    """From a folder of several files, on TP 2 × PP 2; and what is written is what was read."""
    folder = tiny(architecture="qwen3", vocab=70, tied=tied)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "cut", max_shard_size="200KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 3
    found = ranks4.run(rank_functions.load_counted, tmp_path / "cut", Layout(2, 2), tmp_path / "out")
    for read, held, padding in found:
        assert read == held - padding
    assert sum(padding for _, _, padding in found) > 0
    written = {k: v for file in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(file).items()}
    source = load_file(folder / "model.safetensors")
    assert set(written) == set(source) and all(torch.equal(written[name], source[name]) for name in source)
