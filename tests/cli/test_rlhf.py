"""`hybridflow rlhf`: what is checked, what runs and what need not run again. The trainer only leaves what runs do."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from hybridflow.cli import main, rlhf
from hybridflow.config import Config, compose, sections
from hybridflow.errors import ConfigError, HybridFlowError, Stopped
from hybridflow.roles import roles

RLHF = ["rlhf", "-cd", "cfg", "-cn", "three", "sft.actor.model.path=model"]
NAMES = ["addition_warmup", "addition_reward", "addition_model_reward"]
THREE = """
settings: [run.root=runs/rlhf]
stages:
  sft:
    settings: [experiment=addition_warmup]
  train-reward:
    settings: [experiment=addition_reward]
  train:
    settings: [experiment=addition_model_reward]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a file of three stages."""
    folder = tmp_path_factory.mktemp("rlhf")
    (folder / "cfg").mkdir()
    (folder / "cfg/three.yaml").write_text(THREE)
    return folder


@pytest.fixture
def tmp_path(place) -> Path:
    """The same folder for every test, so that its options are composed once; there is nothing else in it."""
    for entry in place.iterdir():
        if entry.name != "cfg":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return place


@pytest.fixture
def ran(ran):
    """Each run leaves its settings when it begins, and a model and its metrics when it ends."""

    def leave(config: Config) -> None:
        folder = Path(config.run.root) / config.run.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(compose.resolved_yaml(config))
        if not ran.raises:
            (folder / "model").mkdir(exist_ok=True)
            lines = [{"step": 0, "validation/accuracy": 0.25}, {"step": 0, "timing_s/step": 1.0}]
            lines += [{"step": 1, "validation/accuracy": 0.75}]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    ran.leaves = leave
    return ran


def names(ran) -> list[str]:
    found = [config.run.name for config in ran]
    ran.clear()
    return found


def test_stages_run_in_their_order_and_a_table_ends_them(workplace, ran, capsys):
    assert main([*RLHF, "run.seed=5", "train-reward.trainer.steps=7"]) == 0
    assert [(config.run.name, config.run.seed) for config in ran] == [(name, 5) for name in NAMES]
    assert [config.trainer.steps for config in ran] == [300, 7, 300]
    assert ran[1].reward_model.model.path == ran[2].actor.model.path == "runs/rlhf/addition_warmup/model"
    assert ran[2].reward.model.path == "runs/rlhf/addition_reward/model"
    out, err = capsys.readouterr()
    assert "stage 2 of 3, train-reward: hybridflow train-reward -cd cfg run.root=runs/rlhf experiment=add" in out
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if "│" in line and "0.250" in line]
    assert [row[1:5] for row in rows] == [[name, "0.250", "0.750", "1"] for name in ("sft", "train-reward", "train")]
    assert err == ""


def test_every_stage_is_checked_before_the_first_starts(workplace, ran, capsys):
    """Also against the models that stages before it will leave, which are not there yet."""
    wrong = [
        "train-reward.reward_model.parallel.tensor=3",
        "train.reward.grader=exakt",
        "train.actor.parallel.pipeline=3",
    ]
    assert main([*RLHF, "placement.pools.main=3", "actor.parallel.tensor=1", *wrong]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hybridflow rlhf:" and ran == [] and not (workplace / "runs").exists()
    said = [line.strip().split(";")[0] for line in lines[1:]]
    assert [line.partition(": ")[0] for line in said] == ["train-reward", "train", "train"]
    heads = "3 does not divide the 4 attention heads of runs/rlhf/addition_warmup/model"
    assert said[0].startswith(f"train-reward: reward_model.parallel.tensor: {heads}")
    assert (
        "reward.grader: no grader is named 'exakt'" in said[1] and "actor.parallel.pipeline: 3 does not div" in said[2]
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-m", "run.seed=1"], "-m: stages cannot be swept"),
        (["run.seed=1,2"], "run.seed=1,2: stages cannot be swept"),
        (["train.run.seed=1,2"], "train.run.seed=1,2: stages cannot be swept"),
        (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: stages cannot be swept"),
        (["run.name=mine"], "run.name: its run folder runs/rlhf/mine is that of stage sft too; give each its own"),
        (["trian.trainer.steps=1"], "no stage is named 'trian'; did you mean train?"),
        (["trainer.stpes=1"], "sft: trainer.stpes: no such key; did you mean trainer.steps?"),
        (
            ["train.reward.model.path=runs/other/model"],
            "train: reward.model.path: runs/other/model is not a model folder",
        ),
        (
            ["train.actor.model.path=runs/rlhf/addition_reward/model"],
            "train: actor.model.path: runs/rlhf/addition_reward/mod",
        ),
        (["train.reward.model.path=runs/rlhf/addition_warmup/model"], "addition_warmup/model has no score head"),
        (["sft.actor.model.path=nowhere"], "sft: actor.model.path: nowhere is not a model folder"),
        (["-cn", "mine"], "-cn mine: there is no mine.yaml in "),
    ],
)
def test_a_mistake_ends_with_2_before_anything_starts(workplace, ran, capsys, arguments, part):
    assert main([*RLHF, *arguments]) == 2
    out, err = capsys.readouterr()
    assert part in err and err.startswith("hybridflow rlhf:") and "Traceback" not in err and out == ""
    assert ran == [] and not (workplace / "runs").exists()


def test_what_is_complete_is_not_run_again(workplace, ran, capsys):
    assert main(RLHF) == 0 and names(ran) == NAMES
    capsys.readouterr()
    assert main(RLHF) == 0 and names(ran) == []
    out = capsys.readouterr().out
    assert "stage 1 of 3, sft: complete, not run again (runs/rlhf/addition_warmup)" in out and out.count("0.750") == 3


def test_a_changed_stage_and_those_after_it_run_again_and_afresh(workplace, ran, capsys):
    main(RLHF)
    names(ran)
    capsys.readouterr()
    assert main([*RLHF, "train-reward.trainer.steps=9"]) == 0
    assert [config.trainer.resume for config in ran] == ["never", "never"] and names(ran) == NAMES[1:]
    out = capsys.readouterr().out
    assert "# other settings than before: trainer.steps: 300 before, 9 now" in out
    assert "# a stage before it runs again" in out
    assert main([*RLHF, "train-reward.trainer.steps=9", "train.trainer.resume=never"]) == 0 and names(ran) == NAMES[2:]


def test_a_failed_stage_is_one_error_and_the_same_command_goes_on_there(workplace, ran, capsys):
    main([*RLHF, "sft.trainer.steps=1"])
    names(ran)
    capsys.readouterr()
    first = ran.leaves

    def fail_second(config: Config) -> None:
        if config.run.name == NAMES[1]:
            ran.raises.append(HybridFlowError("no more disk"))
        first(config)

    ran.leaves = fail_second
    assert main(RLHF) == 1 and names(ran) == NAMES[:2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hybridflow: no more disk"
    assert lines[1].startswith("hybridflow rlhf: stage train-reward, 2 of 3, failed") and len(lines) == 2
    ran.leaves = first
    assert main(RLHF) == 0
    assert [config.trainer.resume for config in ran] == ["auto", "never"] and names(ran) == NAMES[1:]


def test_stages_that_are_complete_are_worth_calling_again_after_a_signal(workplace, ran, capsys):
    """Though the stage that it came in had saved nothing."""
    stopped = NAMES[0]
    first = ran.leaves

    def stop(config: Config) -> None:
        if config.run.name == stopped:
            ran.raises.append(Stopped(signal.SIGTERM))
        first(config)

    ran.leaves = stop
    assert main([*RLHF, "sft.trainer.steps=2"]) == 1
    assert capsys.readouterr().err.endswith("hybridflow: interrupted by SIGTERM: nothing had been saved\n")
    stopped = NAMES[1]
    assert main([*RLHF, "sft.trainer.steps=2"]) == 75
    told = "interrupted by SIGTERM: nothing had been saved; 1 of 3 stages complete, and the same command goes on there"
    assert capsys.readouterr().err.endswith(f"hybridflow: {told}\n")


def test_show_prints_the_commands_and_runs_nothing(workplace, ran, capsys):
    assert main([*RLHF, "--show", "train.run.seed=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["hybridflow", name] for name in ("sft", "train-reward", "train")]
    assert ["run.seed=3" in line for line in lines] == [False, False, True] and ran == []


def test_what_comes_with_hybridflow_passes_every_check_and_says_what_models_it_needs(workplace, ran, capsys):
    models = ["sft.actor.model.path=model", "sft-judge.actor.model.path=model"]
    assert main(["rlhf", *models]) == 0
    assert names(ran) == ["addition_warmup", "addition_judge", "addition_reward", "addition_model_reward"]
    capsys.readouterr()
    assert main(["rlhf", "run.root=runs/again"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.strip().partition(": ")[0] for line in lines[1:]] == ["sft", "sft-judge"]
    assert "hybridflow model addition --out models/addition)" in lines[1]
    assert "hybridflow model addition --layers 4 --out models/addition_4_layers)" in lines[2]


OWN = """
stages:
  first:
    command: sft
    settings: [experiment=mine, run.name=first]
"""


def test_a_file_and_options_of_ones_own(workplace, ran):
    (workplace / "own/experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - addition_warmup\nactor:\n  model:\n    path: model\n"
    (workplace / "own/experiment/mine.yaml").write_text(text)
    (workplace / "own/own_stages.yaml").write_text(OWN)
    assert main(["rlhf", "-cd", "own", "-cn", "own_stages"]) == 0 and names(ran) == ["first"]


def test_what_a_stage_warns_of_is_what_its_command_warns_of(workplace, ran, capsys):
    assert main([*RLHF, "train.actor.optimizer.lr=0", "train.critic.optimizer.lr=0.1"]) == 0
    told = capsys.readouterr().err
    assert "warning: actor.optimizer.lr: 0 given: its updates are taken, and leave it as it is" in told
    assert "critic.optimizer.lr=0.1: no effect" not in told, "PPO has a critic"
    assert main([*RLHF, "sft.critic.optimizer.lr=0.1"]) == 0
    assert "warning: critic.optimizer.lr=0.1: no effect, as sft has no role critic" in capsys.readouterr().err


ROLE = """
from dataclasses import dataclass

from hybridflow.roles import Role, roles


@dataclass
class Settings:
    weight: float = 0.5


@roles.register("{name}", settings=Settings)
class Own(Role):
    light = True
"""


def test_a_stage_has_the_sections_of_its_own_plugins_only(workplace, ran, monkeypatch):
    """Also of a module that an earlier stage's plugin has imported already, and no others afterwards."""
    monkeypatch.setattr(sections, "_added", {})
    monkeypatch.setattr(roles, "_components", dict(roles.registered))
    monkeypatch.syspath_prepend(str(workplace))
    (workplace / "judging_role.py").write_text(ROLE.replace("{name}", "judge"))
    (workplace / "hinting_role.py").write_text(ROLE.replace("{name}", "hinter"))
    (workplace / "first_plugin.py").write_text("import judging_role\nimport hinting_role\n")
    (workplace / "second_plugin.py").write_text("from judging_role import Settings\n")
    plugins = ["sft.plugins=[first_plugin]", "train-reward.plugins=[second_plugin]", "sft.hinter.weight=0.25"]
    assert main([*RLHF, *plugins]) == 0
    kept = [(workplace / f"runs/rlhf/{name}/config.yaml").read_text() for name in names(ran)]
    assert [("\njudge:" in text, "\nhinter:\n  weight: 0.25\n" in text) for text in kept] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert main([*RLHF, *plugins]) == 0 and names(ran) == [], "what is complete is not run again"
    assert sections.added() == ("judge", "hinter")
    with pytest.raises(ConfigError, match=r"train: judge: no such key"):
        rlhf.run([*RLHF[1:], *plugins, "train.judge.weight=1"])
