"""The tiny model that other tests rely on: every weight shows in its logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hybridflow.models import read_shape
from tests.tiny import tiny_model


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_weight_shows(architecture: str, tied: bool, tmp_path: Path) -> None:
    folder = tiny_model(
        tmp_path, layers=2, hidden=64, heads=2, kv_heads=1, vocab=60, tied=tied, architecture=architecture
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    shape = read_shape(folder)
    assert (shape.family, shape.tied, shape.vocab) == (architecture, tied, 60)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("what is 5+7?")["input_ids"]])
    with torch.no_grad():
        logits = model(ids).logits
        assert 1.0 < logits.std() < 5.0
        for name, weight in model.named_parameters():
            kept = weight.clone()
            weight.copy_(torch.ones_like(weight) if name.endswith("norm.weight") else torch.zeros_like(weight))
            change = (model(ids).logits - logits).abs().max()
            weight.copy_(kept)
            # A key bias adds the same to all scores of a query but for the rotation: its effect is real, and small.
            assert change > (1e-3 if "k_proj.bias" in name else 1e-2), name
