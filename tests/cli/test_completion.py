"""Completion, called as a shell calls it: the line in COMP_LINE, the answer on standard output."""

import os
import shutil
import subprocess
import sys

import pytest

from hybridflow.cli import main


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
    assert complete("hybridflow ") == [
        "train", "sft", "train-reward", "train-cost", "rlhf", "algorithms", "check", "model",
    ]  # fmt: skip
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
    assert complete("hybridflow train-cost experiment=addition_c") == ["experiment=addition_cost"]


def test_what_cannot_be_completed_gives_nothing(complete):
    assert complete("hybridflow model addi") == []
    assert complete("hybridflow nonsense x") == []
    assert complete("hybridflow train experiment=nonsense actor.") == []
    assert complete("hybridflow train critic.model.path=") == []


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


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_in_a_real_bash(tmp_path):
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    program = tmp_path / "hybridflow"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom hybridflow.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": source}
    done = subprocess.run(["bash", "-c", BASH], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["experiment="], done.stderr
