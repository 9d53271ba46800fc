"""What a run goes on from: its own newest checkpoint, one that is named, or nothing."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from hybridflow.config.compose import resolved_yaml
from hybridflow.config.schema import Config
from hybridflow.engines.megatron.backend import MegatronBackend
from hybridflow.errors import ConfigError
from hybridflow.models import read_shape, table
from hybridflow.preflight import load
from hybridflow.trainer import resume
from hybridflow.trainer.checkpoint_store import CheckpointError, Checkpoints
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.resume import versions

MODEL = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "vocab_size": 14, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip


@cache
def config_of(*overrides: str) -> Config:
    return load("train", ["experiment=addition", *overrides])


def saved(folder: Path, *steps: int, of: Config | None = None, at: dict[str, str] | None = None) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in steps:
        (checkpoints.begin(step) / resume.CONFIG).write_text(resolved_yaml(of or config_of()))
        checkpoints.commit(step, at or versions())
    return checkpoints


def chosen(own: Checkpoints, *overrides: str) -> tuple[Path | None, list[str]]:
    said: list[str] = []
    return resume.choose(config_of(*overrides), own.path, said.append), said


def test_auto_takes_the_newest_and_says_so(tmp_path: Path) -> None:
    own = saved(tmp_path, 5, 10)
    assert chosen(own) == (own.at(10), [f"resuming from step 10: {own.at(10)}"])


def test_a_run_that_has_its_steps_says_so(tmp_path: Path) -> None:
    own = saved(tmp_path, 8)
    assert chosen(own, "trainer.steps=9") == (own.at(8), [f"resuming from step 8: {own.at(8)}"])
    assert [chosen(own, f"trainer.steps={steps}")[1][1:] for steps in (6, 8)] == [
        [f"warning: nothing is left to learn, as trainer.steps = {steps}: for more, give more than 8"]
        for steps in (6, 8)
    ]


def test_without_a_checkpoint_or_with_never_it_starts_afresh(tmp_path: Path) -> None:
    assert chosen(Checkpoints(tmp_path / "checkpoints")) == (None, [])
    assert chosen(saved(tmp_path, 5), "trainer.resume=never") == (None, [])


@pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/step-000005"])
def test_a_path_may_be_a_run_or_a_checkpoint(tmp_path: Path, part: str) -> None:
    other, own = saved(tmp_path / "other", 5), Checkpoints(tmp_path / "own" / "checkpoints")
    assert chosen(own, f"trainer.resume={tmp_path / 'other' / part}")[0] == other.at(5)


def test_a_path_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.resume: .*nowhere is no checkpoint"):
        chosen(Checkpoints(tmp_path), f"trainer.resume={tmp_path / 'nowhere'}")


def test_going_back_inside_a_run_is_refused(tmp_path: Path) -> None:
    own = saved(tmp_path, 5, 10)
    with pytest.raises(ConfigError, match=r"step-000005 is not the newest checkpoint of this run, step-000010 is"):
        chosen(own, f"trainer.resume={own.at(5)}")


def test_other_settings_are_refused_by_auto_and_told_by_a_path(tmp_path: Path) -> None:
    own = saved(tmp_path, 5)
    changed = ("actor.optimizer.lr=0.5", "run.seed=7", "actor.parallel.tensor=1")
    with pytest.raises(ConfigError) as refused:
        chosen(own, *changed)
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == ["actor.optimizer.lr", "run.seed"]
    assert "trainer.resume=never" in lines[-1]
    found, said = chosen(own, *changed, f"trainer.resume={own.at(5)}")
    assert found == own.at(5)
    assert sum(line.startswith("warning: ") for line in said) == 2
    assert any("actor.parallel.tensor" in line and "rounding" in line for line in said)


def test_of_roles_that_take_no_part_no_layout_is_told(tmp_path: Path) -> None:
    own = saved(tmp_path, 5, of=config_of("algorithm=grpo"))
    (_, *said) = chosen(own, "algorithm=grpo", "actor.parallel.tensor=1", "actor.parallel.pipeline=2")[1]
    assert {line.partition(".")[0] for line in said} == {"actor", "reference"}


def test_other_versions_are_told(tmp_path: Path) -> None:
    own = saved(tmp_path, 5, at=versions() | {"torch": "1.0"})
    (_, warning) = chosen(own)[1]
    assert warning.startswith("warning: torch is ") and "was 1.0" in warning


def test_a_damaged_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    own = saved(tmp_path, 5, 10)
    (own.at(10) / resume.CONFIG).write_text("seed: 1")
    with pytest.raises(CheckpointError, match=r"step-000010: config\.yaml has"):
        chosen(own)


@pytest.mark.parametrize(
    "changes",
    [
        {"lm_head.weight": None, "value_head.weight": (1, 128)},
        {"model.layers.0.mlp.up_proj.weight": (64, 128)},
        {"model.norm.weight": None},
        {"model.layers.99.input_layernorm.weight": (128,)},
    ],
)
def test_the_weights_of_another_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, tuple[int, ...] | None]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(MODEL))
    config = config_of("algorithm=grpo", f"actor.model.path={model}")
    own = Checkpoints(tmp_path / "checkpoints")
    folder = own.begin(5)
    (folder / resume.CONFIG).write_text(resolved_yaml(config))
    (folder / "actor").mkdir()
    (folder / "actor/state.json").write_text("{}")
    own.commit(5, versions())
    saved_shapes = {weight.name: weight.shape for weight in table(read_shape(model))} | changes
    monkeypatch.setattr(MegatronBackend, "check_saved", lambda folder: None)
    monkeypatch.setattr(
        MegatronBackend, "saved_shapes", lambda folder: {name: shape for name, shape in saved_shapes.items() if shape}
    )
    if "value_head.weight" in changes:
        assert resume.choose(config, own.path, lambda line: None) == own.at(5)
        return
    with pytest.raises(CheckpointError, match=rf"step-000005/actor is of another model: {next(iter(changes))} has the"):
        resume.choose(config, own.path, lambda line: None)


@pytest.mark.parametrize(
    ("progress", "ended"),
    [
        (Progress(0, 0.0, {0: 0.99}), True),
        (Progress(0, 0.0, {0: 0.1}), False),
        (Progress(4, 0.0, {0: 0.1, 4: 0.8}), False),
        (Progress(4, 0.0, {0: 0.1, 4: 0.9}), True),
        (Progress(5, 0.0, {0: 0.1, 4: 0.9}), False),
        (Progress(9, 0.0, {}), True),
    ],
)
def test_when_a_run_has_ended(progress: Progress, ended: bool) -> None:
    assert progress.ended(steps=9, stop_at_accuracy=0.9) is ended
    assert Progress(4, 0.0, {4: 1.0}).ended(9, None) is False
