"""Completion, called as a shell calls it: the line in COMP_LINE, the answer on standard output."""

import os
import shutil
import subprocess
import sys

import pytest

from hybridflow.cli import SUBCOMMANDS, main
from hybridflow.cli.names import names_for
from hybridflow.config.key_suggestions import all_keys
from hybridflow.workers import workers


@pytest.fixture
def complete(monkeypatch, capsys):
    def ask(line: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        assert main(["-sc", f"query={shell}"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.split()

    return ask


def test_subcommands(complete):
    found = complete("hybridflow ")
    assert found == [*SUBCOMMANDS] and {"train", "evaluate", "data"} <= {*found}
    assert complete("hybridflow tr") == ["train", "train-reward", "train-cost"]


@pytest.mark.parametrize("program", ["hybridflow", "./.venv/bin/hybridflow", "/usr/bin/hybridflow"])
def test_a_group_and_its_options(complete, program):
    assert complete(f"{program} train experi") == ["experiment="]
    assert complete(f"{program} train experiment=addition_w") == ["experiment=addition_warmup"]


def test_keys_and_flags(complete):
    assert complete("hybridflow train experiment=addition actor.par") == ["actor.parallel."]
    assert complete("hybridflow sft -m actor.parallel.ten") == ["actor.parallel.tensor="]
    assert complete("hybridflow train algorithm=gr", shell="fish") == ["algorithm=grpo"]
    assert complete("hybridflow train-reward reward_model.opt") == ["reward_model.optimizer."]
    assert complete("hybridflow train ++task.na") == ["++task.name="]
    assert complete("hybridflow train-cost experiment=addition_c") == ["experiment=addition_cost"]


def test_data_takes_a_task_and_settings(complete):
    assert complete("hybridflow data addition_s") == ["addition_sevens"]
    assert {"mixture", "word_sums"} <= {*complete("hybridflow data ")}
    assert complete("hybridflow data addition task.too_") == ["task.too_long="]
    assert complete("hybridflow data rows.jsonl models/mine rollout.max_s") == ["rollout.max_sequence_tokens="]
    assert complete("hybridflow data task=word") == ["task=word_sums"]
    assert complete("hybridflow data ./add") == []


def test_plan_takes_a_subcommand_and_its_settings(complete):
    assert complete("hybridflow plan sf") == ["sft"]
    assert complete("hybridflow plan sft experiment=addition_w") == ["experiment=addition_warmup"]
    assert complete("hybridflow plan placement=sp") == ["placement=split"]
    assert complete("hybridflow plan hardware=h100") == ["hardware=h100_80g_8x"]
    assert complete("hybridflow plan experiment=addition har") == ["hardware="]
    assert complete("hybridflow plan hardware=cpu experiment=addition actor.par") == ["actor.parallel."]


def test_options_of_a_folder_of_ones_own(complete, tmp_path, monkeypatch):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/my_sums.yaml").write_text("# @package _global_\ndefaults: [addition]\n")
    (tmp_path / "mine/stages.yaml").write_text("stages:\n  sft: {settings: [experiment=my_sums]}\n")
    monkeypatch.chdir(tmp_path)
    assert complete("hybridflow train -cd mine experiment=my") == ["experiment=my_sums"]
    assert complete("hybridflow train -cd mine experiment=my_sums actor.par") == ["actor.parallel."]
    assert complete("hybridflow train experiment=my_sums -cd mi") == ["mine/"]
    assert complete("hybridflow train experiment=my") == []
    assert complete("hybridflow rlhf -cd mine -cn stages sft.experiment=my") == ["sft.experiment=my_sums"]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("rollout.recovery", ["exact", "durable"]),
        ("actor.recompute", ["none", "selective", "full"]),
        ("trainer.partial", ["true", "false", "null"]),
        ("trainer.sampler", ["fifo", "oldest_weights", "windowed_fifo"]),
    ],
)
def test_what_a_key_may_be(complete, key, values):
    assert complete(f"hybridflow train {key}=") == [f"{key}={value}" for value in values]


def test_names_of_registered_parts(complete, tmp_path, monkeypatch):
    assert complete("hybridflow train algorithm.advantage.name=re") == [
        f"algorithm.advantage.name={name}" for name in ("reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax")
    ]
    assert complete("hybridflow train reward.grader=last") == ["reward.grader=last_number"]
    assert complete("hybridflow train trainer.schedule=sy") == ["trainer.schedule=sync"]
    workers.get("graded_model")  # which settings do not name
    assert complete("hybridflow train reward.worker=") == ["reward.worker=reward", "reward.worker=model"]
    assert complete("hybridflow train algorithm.rollout_filter.name=n") == ["algorithm.rollout_filter.name=none"]
    assert complete("hybridflow train task.name=word", shell="fish") == ["task.name=word_sums"]
    (tmp_path / "grades_for_completion.py").write_text(
        "from hybridflow.tasks import graders\n\n@graders.register('quite_mine')\ndef grade(a, b): return 1.0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = complete("hybridflow train plugins=[grades_for_completion] reward.grader=quite")
    assert found == ["reward.grader=quite_mine"]


def test_every_key_that_names_a_part_is_completed():
    named = {"name", "worker", "engine", "grader", "aggregate", "kl_estimator", "reward_kl_estimator", "pair_loss"}
    keys = [key for key in all_keys() if key.rpartition(".")[2] in named and key != "run.name"]
    assert len(keys) > 20 and [key for key in keys if names_for(key) is None or not names_for(key)()] == []


def test_stages_of_rlhf_and_their_settings(complete):
    assert complete("hybridflow rlhf tra") == ["train-reward.", "train.", "trainer.", "trainer="]
    assert complete("hybridflow rlhf train-reward.reward_model.opt") == ["train-reward.reward_model.optimizer."]
    assert complete("hybridflow rlhf train.algorithm.advantage.name=ga") == ["train.algorithm.advantage.name=gae"]
    assert complete("hybridflow rlhf +sft.task.na") == ["+sft.task.name="]
    assert complete("hybridflow rlhf run.se") == ["run.seed="]


def test_what_cannot_be_completed_gives_nothing(complete):
    assert complete("hybridflow model addi") == []
    assert complete("hybridflow nonsense x") == []
    assert complete("hybridflow train experiment=nonsense actor.") == []
    assert complete("hybridflow train critic.model.path=") == []


def test_what_a_plugin_prints_is_no_candidate(complete, tmp_path, monkeypatch):
    (tmp_path / "prints_a_lot.py").write_text("print('hello')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert complete("hybridflow train plugins=[prints_a_lot] task.name=addition_s") == ["task.name=addition_sevens"]


def test_install_and_uninstall(capsys):
    assert main(["-sc", "install=bash"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("-F hydra_bash_completion hybridflow")
    assert main(["-sc", "uninstall=bash"]) == 0
    assert "unset hydra_bash_completion" in capsys.readouterr().out


BASH = """
eval "$(hybridflow -sc install=bash)"
COMP_LINE="hybridflow train experi"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=2
hydra_bash_completion
echo "${COMPREPLY[@]}"
"""


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_in_a_real_bash(tmp_path):
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    program = tmp_path / "hybridflow"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom hybridflow.cli import SUBCOMMANDS, main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": source}
    done = subprocess.run(["bash", "-c", BASH], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["experiment="], done.stderr
