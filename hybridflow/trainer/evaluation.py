"""Evaluation: answers of a model to the held-out rows of a task, by the code that validates a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hybridflow import interrupt
from hybridflow.config.compose import resolved_yaml
from hybridflow.config.schema import Config, FullDisk
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import locked
from hybridflow.preflight import run_folder_checks
from hybridflow.trainer.answer_statistics import Answers, Comparison, statistics
from hybridflow.trainer.build import build
from hybridflow.trainer.task_rows import load_held_out, load_validation_sets, notes
from hybridflow.trainer.validation import graded_answers


@dataclass(frozen=True)
class Evaluation:
    """Answers of one model, by set; the task's own have the name ''."""

    model: str
    answers: dict[str, Answers]
    folder: Path

    @property
    def statistics(self) -> dict[str, float]:
        """Return what they say, as validations name it."""
        found = {name: statistics(answers) for name, answers in self.answers.items()}
        return {
            f"{name}/{metric}" if name else metric: value
            for name, own in found.items()
            for metric, value in own.items()
        }

    def write(self, comparisons: dict[str, Comparison] | None = None, against: str = "") -> None:
        """Write `evaluation.json`, with how it compares to the model `against` if it does."""
        result: dict[str, object] = {"model": self.model, "statistics": self.statistics}
        if comparisons:
            compared = {name: asdict(comparison) for name, comparison in comparisons.items()}
            result |= {"against": against, "compared": compared}
        RunFolder(self.folder).write_evaluation(result)


def evaluate(config: Config, model: str) -> Evaluation:
    """Let the model of `actor.model.path` answer, and keep the answers in the run folder.

    Args:
        model: how the user calls it.

    Raises ConfigError if the rows cannot be used, HybridFlowError if more grades fail than may, RoleError if a role
    fails.
    """
    # Its answers are what it is for.
    config = replace(config, trainer=replace(config.trainer, full_disk=FullDisk.stop))
    live = Live()
    folder = RunFolder(run_folder_checks.folder_of(config))
    with locked(folder.path), interrupt.ShieldedStack() as stack:
        for line in notes(config):
            live.say(line)
        sets = [load_held_out(config, live.say), *load_validation_sets(config, live.say)]
        running = build(config, stack, live.say)
        if (aside := folder.archive_previous()) is not None:
            live.say(f"what an earlier evaluation left is now in {aside}")
        folder.write_config(resolved_yaml(config))
        answers = {
            one.name: graded_answers(config, running, one, step=0, folder=folder.validation / one.name) for one in sets
        }
        return Evaluation(model, answers, folder.path)
