"""The commands that a run ends with."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hybridflow.trainer.next_commands import next_commands, resumed

RUN = Path("runs/my run")
TRAIN = ["python", "/venv/bin/hybridflow", "train", "experiment=sums", "'rollout.stop=[\"\\n\"]'", "trainer.steps=3"]


def commands(argv: list[str], steps: int = 6, *, answers: bool = True) -> dict[str, str]:
    return dict(next_commands(RUN, RUN.name, answers=answers, steps=steps, argv=argv))


def test_they_are_of_the_run_and_can_be_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = commands(TRAIN)
    assert shlex.split(told["evaluate"]) == ["hybridflow", "evaluate", "runs/my run"]
    assert shlex.split(told["export"]) == ["hybridflow", "export", "runs/my run", "--out", "models/my run"]
    assert shlex.split(told["continue"]) == ["hybridflow", *TRAIN[2:5], "trainer.steps=6"]
    (tmp_path / "models/my run").mkdir(parents=True)
    assert commands(TRAIN)["export"].endswith("--out 'models/my run-2'")
    assert "evaluate" not in commands(TRAIN, answers=False), "a reward model answers nothing"


@pytest.mark.parametrize(
    "argv", [["python", "mine.py"], ["python", "hybridflow", "rlhf", "run.seed=2"], [*TRAIN, "-m", "run.seed=1,2"]]
)
def test_what_made_other_runs_too_is_not_repeated(argv: list[str]) -> None:
    assert commands(argv)["continue"] == "trainer.steps=6, or another number, added to the same command"


def test_the_model_of_a_job_of_a_sweep_is_named_after_the_sweep() -> None:
    told = dict(next_commands(Path("runs/sums/3"), "sums/3", answers=True, steps=0, argv=TRAIN))
    assert told["export"] == "hybridflow export runs/sums/3 --out models/sums-3"


def test_a_module_is_the_command_too() -> None:
    argv = ["python", "-m", "hybridflow", "sft", "run.name=a", "trainer.resume=never"]
    assert commands(argv)["continue"] == "hybridflow sft run.name=a trainer.steps=6"


def test_without_a_checkpoint_there_is_no_going_on() -> None:
    assert commands(TRAIN, steps=0)["continue"] == "not possible: no checkpoint was kept (trainer.save_every)"


@pytest.mark.parametrize(
    ("argv", "resume", "command"),
    [
        (TRAIN[:4], "auto", "hybridflow train experiment=sums"),
        (["python", "-m", "hybridflow", "rlhf", "run.seed=2"], "auto", "hybridflow rlhf run.seed=2"),
        ([*TRAIN[:3], "-m", "run.seed=1,2"], "auto", "hybridflow train -m run.seed=1,2"),
        ([*TRAIN[:3], "trainer.resume=never"], "never", "hybridflow train trainer.resume=auto"),
        (["python", "my run.py"], "auto", "python 'my run.py'"),
    ],
)
def test_what_was_stopped_goes_on_by_the_same_command(argv: list[str], resume: str, command: str) -> None:
    assert resumed(argv, resume) == command
