"""What a run says that takes more prompts a step than there are, and one that has nothing left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow import preflight
from hybridflow.algorithms import algorithms
from hybridflow.observe import terminal
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import OpenSinks
from hybridflow.tasks.addition import ALPHABET, Addition
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.trainer.loop import Outputs, train
from hybridflow.trainer.progress import Progress


class NothingFails:
    """What a run goes on by, where nothing fails."""

    validates = False

    def go_on(self, work: Callable[[], None]) -> None:
        work()


def ready(algorithm: str = "grpo") -> Any:
    """A run that has no step to take, only its model to save."""
    actor = SimpleNamespace(save_model=lambda folder: SimpleNamespace(get=lambda: None))
    made = object.__new__(algorithms.get(algorithm))
    return SimpleNamespace(algorithm=made, supervisor=None, groups={made.learner: actor})


def outputs(folder: Path) -> Outputs:
    """Words on standard output, and no metrics."""
    return Outputs(RunFolder(folder), OpenSinks(), terminal.say)


@pytest.mark.parametrize(("extra", "says"), [(1, True), (0, False)])
def test_more_prompts_a_step_than_there_are(
    extra: int, says: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Addition(char_tokenizer(ALPHABET))
    size = task.size("train")
    sizes = [f"algorithm.prompts_per_step={size + extra}", "trainer.steps=3"]
    config = preflight.load("train", ["experiment=addition", *sizes])
    recovery: Any = NothingFails()
    train(config, ready(), task, outputs(tmp_path), Progress(steps=3, accuracy={3: 0.5}), recovery)
    out = " ".join(capsys.readouterr().out.split())
    expected = f"prompts_per_step = {size + 1} is more than the {size} rows of split 'train': a step takes some of them"
    assert (expected in out) is says
    assert "stop_at_accuracy" not in out


def test_a_run_that_is_good_enough_says_why_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Addition(char_tokenizer(ALPHABET))
    config = preflight.load("train", ["experiment=addition", "trainer.steps=3", "trainer.stop_at_accuracy=0.9"])
    recovery: Any = NothingFails()
    train(config, ready(), task, outputs(tmp_path), Progress(accuracy={0: 0.9}), recovery)
    assert capsys.readouterr().out == "trainer.stop_at_accuracy = 0.9 is reached: the run ends here\n"
