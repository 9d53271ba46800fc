"""Files of stages, and which stage an argument is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.cli.stages import Stage, read, split
from hybridflow.errors import ConfigError

FILE = """
settings: [run.root=runs/mine]
stages:
  sft:
    settings: [experiment=addition_warmup, "actor.model.path=${run.root}/m"]
  judge:
    command: train-reward
    settings: [experiment=addition_reward]
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write `mine.yaml` into a folder that `read` is given."""

    def into(text: str) -> Path:
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path

    return into


def test_what_is_more_particular_comes_later(write) -> None:
    overrides = ["judge.trainer.steps=5", "run.seed=2", "+judge.task.options.wrong_answers=4", "judge.algorithm=dpo"]
    assert read("mine", overrides, write(FILE)) == [
        Stage(
            "sft",
            "sft",
            ("run.root=runs/mine", "experiment=addition_warmup", "actor.model.path=${run.root}/m", "run.seed=2"),
        ),
        Stage(
            "judge",
            "train-reward",
            ("run.root=runs/mine", "experiment=addition_reward", "run.seed=2", "trainer.steps=5",
             "+task.options.wrong_answers=4", "algorithm=dpo"),
        ),
    ]  # fmt: skip


def test_what_comes_with_hybridflow_is_full_rlhf() -> None:
    assert [(stage.name, stage.command) for stage in read("rlhf")] == [
        ("sft", "sft"),
        ("sft-judge", "sft"),
        ("train-reward", "train-reward"),
        ("train", "train"),
    ]


@pytest.mark.parametrize(
    "override", ["trainer=smoke", "trainer.steps=2", "rewards.grader=x", "experiment=a.b", "a=train.b"]
)
def test_what_names_no_stage_is_for_all(override: str) -> None:
    assert split([override], ["train", "train-reward"]) == ([override], {"train": [], "train-reward": []})


def test_a_misspelled_stage_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"no stage is named 'train_reward'; did you mean train-reward\? The stages are"
    ):
        split(["train_reward.trainer.steps=2"], ["sft", "train-reward"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("stages: {}\n", "it has no stages"),
        ("stages: [sft]\n", "not a file of stages"),
        ("stages:\n  sft:\n    setings: []\n", "not a file of stages"),
        ("stages: {sft: {\n", "mine.yaml:2: not readable as YAML"),
        (
            "stages:\n  sft: {}\n  judge: {}\n",
            "mine.yaml:3: stage judge: 'judge' is no subcommand that trains; give `com",
        ),
        ("stages:\n  a: {command: model}\n", "mine.yaml:2: stage a: 'model' is no subcommand that trains"),
        ("stages:\n  actor: {command: sft}\n", "mine.yaml:2: stage actor: a section of the settings has this name"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(write, text: str, part: str) -> None:
    with pytest.raises(ConfigError) as error:
        read("mine", [], write(text))
    assert part in str(error.value) and "mine.yaml" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named_with_the_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"-cn mine: there is no mine\.yaml in .*trainer_configs or {tmp_path}"):
        read("mine", [], tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        read("mine", [], tmp_path / "nowhere")
