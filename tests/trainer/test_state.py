"""What the trainer itself keeps in a checkpoint: the algorithm's state and what has been measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridflow.algorithms import Algorithm
from hybridflow.controller import Group, Supervisor
from hybridflow.errors import HybridFlowError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Placement
from hybridflow.preflight import load
from hybridflow.roles import CriticRole
from hybridflow.trainer import checkpoint
from hybridflow.trainer.build import Running
from hybridflow.trainer.checkpoint_store import Checkpoints, verify
from hybridflow.trainer.progress import Progress


class Adaptive(Algorithm):
    """An algorithm with a coefficient."""

    coefficient = 0.1

    def state(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient}

    def restore(self, state: dict[str, Any]) -> None:
        self.coefficient = state["coefficient"]


def running() -> Running:
    """No role is started, so that no rank is needed."""
    algorithm = Adaptive(load("train", ["experiment=addition"]).algorithm, {})
    return Running(algorithm, {}, {}, Placement((), ()), Supervisor())


def test_the_algorithm_and_what_was_measured_come_back(tmp_path: Path) -> None:
    config = load("train", ["experiment=addition", "trainer.keep_last=1"])
    folder, first, second = RunFolder(tmp_path), running(), running()
    folder.log({"step": 0, "reward/mean": 0.5})
    assert isinstance(first.algorithm, Adaptive) and isinstance(second.algorithm, Adaptive)
    for steps in (2, 4):
        first.algorithm.coefficient = steps / 3
        checkpoint.save(config, first, folder, Progress(steps, 1.5, {0: 0.1, steps: 1 / 3}, draws=3 * steps))
    newest = Checkpoints(folder.checkpoints).newest()
    assert newest is not None and newest.name == "step-000004" and verify(newest).step == 4
    assert len(list(folder.checkpoints.glob("step-*"))) == 1
    assert checkpoint.load(second, newest) == Progress(4, 1.5, {0: 0.1, 4: 1 / 3}, draws=12)
    assert second.algorithm.coefficient == 4 / 3
    assert checkpoint.sizes(newest) == folder.sizes()


def test_a_role_that_the_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    config, folder = load("train", ["experiment=addition"]), RunFolder(tmp_path)
    checkpoint.save(config, running(), folder, Progress(1))
    other = running()
    other.groups["critic"] = Group("critic", CriticRole, Layout(), [], other.supervisor)
    with pytest.raises(HybridFlowError, match="step-000001 has no critic"):
        checkpoint.load(other, folder.checkpoints / "step-000001")
