"""A working directory with a model folder, and a trainer that only notes what it was given."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from hybridflow.models import table
from hybridflow.models.model_shape import shape_of

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 23,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory but for a model folder, `model`: its config, a tokenizer, and weights that are 0."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(QWEN2))
    weights = {weight.name: np.zeros(weight.shape, np.float16) for weight in table(shape_of(QWEN2))}
    save_file(weights, tmp_path / "model" / "model.safetensors")
    names = {name: number for number, name in enumerate(["<pad>", "<|endoftext|>", *"0123456789+=-"])}
    Tokenizer(models.BPE(names, [])).save(str(tmp_path / "model" / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # plugins add the working directory
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """The configurations that reached the trainer; what is appended to `ran.raises` is raised by the next run.

    What a run leaves, it leaves: its settings, from the start, and a model with a head, at the end.
    """

    class Ran(list):
        raises: list[BaseException]
        leaves = None  # called with the configuration of each run

    found = Ran()
    found.raises = []

    def run(config):
        found.append(config)
        if found.leaves:
            found.leaves(config)
        else:
            (Path(config.run.root) / config.run.name / "config.yaml").write_text("")  # it has begun
        if found.raises:
            raise found.raises.pop(0)
        return 0

    module = types.ModuleType("hybridflow.trainer.run")
    module.run = run
    monkeypatch.setitem(sys.modules, "hybridflow.trainer.run", module)
    return found
