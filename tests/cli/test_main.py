"""The command itself, and what it costs to ask it something."""

import os
import subprocess
import sys

import pytest

from hybridflow.cli import SUBCOMMANDS, main

HEAVY = ("torch", "vllm", "ray", "megatron", "transformers")


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in SUBCOMMANDS if name not in out] == []
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hybridflow 0.")


def test_no_subcommand_and_an_unknown_one_are_mistakes(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: hybridflow")
    assert main(["trian"]) == 2
    assert "no subcommand is named 'trian'; did you mean train?" in capsys.readouterr().err


def test_help_of_train_lists_the_groups(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "experiment: addition, addition_cost, addition_dpo, addition_model_reward, addition_reward, " in out
    assert "algorithm: cispo, cost_model, dapo, dpo, dr_grpo, gdpo, grpo, gspo, ppo, " in out
    assert "cost: sevens" in out


SCRIPT = f"""
import sys
from hybridflow.cli import main
status = main(sys.argv[1:])
print([name for name in {HEAVY!r} if name in sys.modules], status, file=sys.stderr)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["train", "--cfg", "job", "experiment=addition"], 0),
        (["train", "experiment=addition", "actor.paralel=1"], 2),
        (["train", "experiment=addition", "actor.model.path=nowhere"], 2),
    ],
)
def test_asking_is_cheap(arguments, status, tmp_path):
    """Nothing heavy is imported to answer it."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == f"[] {status}"


FIRST_OF_OURS = ("hybridflow.algorithms", "hybridflow.batch", "hybridflow.preflight", "hybridflow.trainer", "numpy")
IMPORTS = """
import sys
from hybridflow.cli import main
status = main(sys.argv[2:])
print([name for name in sys.argv[1].split(",") if name in sys.modules], status, file=sys.stderr)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], (*HEAVY, *FIRST_OF_OURS, "hydra", "omegaconf", "yaml", "rich")),
        (["-sc", "query=bash"], (*HEAVY, *FIRST_OF_OURS, "rich")),
        (["train", "experiment=addition", "actor.model.path=model", "--check"],
         ("ray", "vllm", "megatron", "hybridflow.controller", "torch._dynamo", "transformers.models", "pandas")),
    ],
)  # fmt: skip
def test_what_starts_nothing_imports_little(arguments, unwanted, tiny, tmp_path):
    """It is what they cost: an import of torch takes two seconds of computing, and Ray's one."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    (tmp_path / "model").symlink_to(tiny())
    line = {"COMP_LINE": "hybridflow train experiment=addition actor.par", "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join(unwanted), *arguments],
        cwd=tmp_path, env={**os.environ, **line}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[] 0", done.stdout


def test_a_working_directory_that_is_gone_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["sft", "experiment=addition_warmup"]) == 2
    assert capsys.readouterr().err == "hybridflow sft: the working directory is no longer there; cd to one that is\n"
