"""What is known of folders before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from safetensors.numpy import save_file

from hybridflow import preflight
from hybridflow.models.model_shape import shape_of
from hybridflow.models.weight_table import table
from hybridflow.preflight import job_checks
from hybridflow.tasks.tokenizer import char_tokenizer
from tests.cli.conftest import QWEN2


def problems(*overrides: str, algorithm: str = "ppo") -> list[str]:
    settings = ["experiment=addition", f"algorithm={algorithm}", "actor.model.path=model", *overrides]
    settings += ["rollout.max_sequence_tokens=32", "rollout.max_response_tokens=8", "actor.max_tokens_per_rank=64"]
    return preflight.problems(preflight.load("train", settings))


def write_model(folder: Path, alphabet: str, vocab: int) -> None:
    folder.mkdir(exist_ok=True)
    char_tokenizer(alphabet).save_pretrained(folder)
    config = QWEN2 | {"vocab_size": vocab}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {weight.name: np.zeros(weight.shape, np.float16) for weight in table(shape_of(config))}
    save_file(weights, folder / "model.safetensors")


def test_models_of_one_tokenizer_may_be_padded_differently(workplace: Path) -> None:
    write_model(workplace / "model", "0123456789+=", 23)
    write_model(workplace / "critic", "0123456789+=", 64)
    assert problems("critic.model.path=critic") == []


def test_models_of_one_size_may_not_mean_other_tokens(workplace: Path) -> None:
    write_model(workplace / "model", "0123456789+=", 23)
    write_model(workplace / "critic", "1023456789+=", 23)
    assert problems("critic.model.path=critic") == [
        "critic.model.path: its tokens are not the actor's: id 2 is '0' in model, but '1' in critic"
    ]
    (workplace / "critic" / "tokenizer.json").write_text("version https://git-lfs")
    (found,) = problems("critic.model.path=critic")
    assert found.startswith("critic.model.path: its tokens are not the actor's: critic: its tokenizer cannot be read")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_folder_that_asks_to_run_its_code_is_refused_until_its_user_says_no(name: str, workplace: Path) -> None:
    write_model(workplace / "model", "0123456789+=", 23)
    file = workplace / "model" / name
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"auto_map": {"AutoConfig": "mine.Config"}}))
    (found,) = problems(algorithm="grpo")
    assert found.startswith(f"actor.model.path: model/{name}: auto_map") and "set it to null" in found
    file.write_text(json.dumps(whole | {"auto_map": None}))
    assert problems(algorithm="grpo") == []


def test_sizes_are_compared_where_there_are_no_tokenizers(workplace: Path) -> None:
    write_model(workplace / "critic", "0123456789+=", 64)
    (workplace / "critic" / "tokenizer.json").unlink()
    (found,) = problems("critic.model.path=critic")
    assert found.startswith("critic.model.path: a vocabulary of 64 in critic, but the actor's has 23, and there are no")


@pytest.mark.parametrize(("name", "told"), [("Qwen/Qwen2.5-0.5B", True), ("models/mine", False), ("a/b/c", False)])
def test_a_name_on_a_hub_is_told_from_a_folder(name: str, told: bool, workplace: Path) -> None:
    (found,) = [line for line in problems(f"actor.model.path={name}", algorithm="grpo") if "is not a model" in line]
    assert ("hf download Qwen/Qwen2.5-0.5B --local-dir models/Qwen2.5-0.5B" in found) is told


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_temporary_folder_is_told(variable: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(workplace / "model", "0123456789+=", 23)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv(variable, "/tmp/" + "x" * 40)
    (found,) = problems(algorithm="grpo")
    assert found.startswith(f"{variable}: /tmp/{'x' * 40} is 45 bytes long") and "set RAY_TMPDIR to a folder" in found
    assert problems("ray.address=10.0.0.1:6379", algorithm="grpo") == []
    with TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv(variable, short)
        assert problems(algorithm="grpo") == []
    for given in (short, "/etc/passwd", "."):  # it is gone by now
        monkeypatch.setenv(variable, given)
        (found,) = problems(algorithm="grpo")
        assert found.startswith(f"{variable}: '{given}' is no folder that can be written")
    monkeypatch.setenv(variable, "")
    assert problems(algorithm="grpo") == []


@pytest.mark.parametrize(
    ("gpus", "address", "device", "told"),
    [
        (0, "local", "auto", True),
        (2, "local", "auto", False),
        (2, "local", "cpu", True),
        (0, "auto", "auto", False),
        (2, "auto", "cpu", True),
    ],
)
def test_heads_that_vllm_does_not_take_here_are_told(
    gpus: int, address: str, device: str, told: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything starts; what a cluster that is joined has for hardware is not known."""
    write_model(workplace / "model", "0123456789+=", 23)
    config = json.loads((workplace / "model" / "config.json").read_text())
    sizes = {"hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": None}
    (workplace / "model" / "config.json").write_text(json.dumps(config | sizes))
    monkeypatch.setattr(job_checks, "local_gpus", lambda: gpus)
    settings = (f"ray.address={address}", f"placement.device={device}")
    found = [line for line in problems(*settings) if "heads" in line]
    said = "actor.model.path: model has heads of 16 numbers: vLLM's attention on a CPU takes 32, 64, 80,"
    assert [line.startswith(said) for line in found] == [True] * told


def test_more_slots_than_gpus_of_this_machine_are_told(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(workplace / "model", "0123456789+=", 23)
    monkeypatch.setattr(job_checks, "local_gpus", lambda: 1)
    (found,) = problems(algorithm="grpo")
    assert found.startswith("placement.pools.main: 2 slots for models, each of which takes a GPU, but there is 1;")
    assert problems("placement.device=cpu", algorithm="grpo") == []
    assert problems("ray.address=10.0.0.1:6379", algorithm="grpo") == [], "what that cluster has is not known"
