"""What the trainer itself keeps in a checkpoint: the algorithm's state and what has been measured."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hybridflow.algorithms import Algorithm
from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.controller import Group, Supervisor
from hybridflow.errors import HybridFlowError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Placement
from hybridflow.preflight import load
from hybridflow.roles import CriticRole
from hybridflow.tasks import build
from hybridflow.trainer import checkpoint, saved_state
from hybridflow.trainer.build import Running
from hybridflow.trainer.checkpoint_store import CheckpointError, Checkpoints, verify
from hybridflow.trainer.progress import Learning, Progress
from hybridflow.trainer.saved_state import SavedState
from hybridflow.trainer.task_rows import rows_changed
from tests.tasks.written_rows import write_jsonl


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


def test_rows_that_changed_since_a_checkpoint_are_seen(tmp_path: Path) -> None:
    config = load("train", ["experiment=addition"])
    file = write_jsonl(tmp_path, [{"question": f"{n}?", "answer": "1"} for n in range(9)])
    before = build("rows", any_text_tokenizer(), {"path": str(file)})
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    checkpoint.save(config, running(), folder, Progress(1, draws=1, rows_fingerprint=before.fingerprint))
    newest = Checkpoints(folder.checkpoints).newest()
    assert newest is not None
    assert not rows_changed(checkpoint.rows_fingerprint(newest), before)
    write_jsonl(tmp_path, [{"question": f"{n}?", "answer": "1"} for n in range(10)])
    now = build("rows", any_text_tokenizer(), {"path": str(file)})
    assert rows_changed(checkpoint.rows_fingerprint(newest), now)


def crafted(folder: Path, **changes: Any) -> Path:
    """A checkpoint whose `trainer.json` says something else in these entries."""
    place = folder / "step-000002"
    place.mkdir()
    learning = {"actor": Learning(4.0, 1.0, moved=True)}
    accuracy = {0: 0.1, 2: math.nan}
    progress = Progress(2, 1.5, accuracy, 3, {2: 0.5}, learning, 2, 0.5, "rows", {"steps": 1.0}, {"draws": []})
    state = SavedState(progress, {"coefficient": 0.1}, {"metrics.jsonl": 20}).to_json()
    (place / "trainer.json").write_text(json.dumps(state | changes))
    return place


def test_all_of_the_state_comes_back(tmp_path: Path) -> None:
    state = saved_state.read(crafted(tmp_path))
    assert math.isnan(state.progress.accuracy.pop(2))
    learning = {"actor": Learning(4.0, 1.0, moved=True)}
    expected = Progress(2, 1.5, {0: 0.1}, 3, {2: 0.5}, learning, 2, 0.5, "rows", {"steps": 1.0}, {"draws": []})
    assert state.progress == expected
    unset = [
        entry.name for entry in fields(Progress) if getattr(expected, entry.name) == getattr(Progress(), entry.name)
    ]
    assert unset == [], "a new entry is not tried here"
    assert (state.algorithm, state.files) == ({"coefficient": 0.1}, {"metrics.jsonl": 20})


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("steps", "2", "steps = '2': a whole number of at least 0 was expected"),
        ("steps", 3, "steps = 3, in the folder step-000002"),
        ("seconds", None, "seconds = None: a number was expected"),
        ("seconds", -1.0, "seconds = -1.0: seconds, 0 or more, were expected"),
        ("seconds", math.nan, "seconds = nan: seconds, 0 or more, were expected"),
        ("files", {"../../x": 0}, r"files: '\.\./\.\./x': a file in the run folder was expected"),
        ("files", {"/etc/passwd": 0}, "files: '/etc/passwd': a file in the run folder was expected"),
        ("files", {"a\0": 0}, r"files: 'a\\x00': a file in the run folder was expected"),
        ("accuracy", [0.1], r"accuracy = \[0.1\]: an object was expected"),
        ("accuracy", {"0": "high"}, "accuracy.0 = 'high': a number was expected"),
        ("accuracy", {"first": 0.5}, "accuracy: 'first': a number of steps was expected"),
        ("draws", True, "draws = True: a whole number of at least 0 was expected"),
        ("mean_grade", {"0": True}, "mean_grade.0 = True: a number was expected"),
        ("learning", {"actor": 3}, "learning.actor = 3: an object was expected"),
        ("learning", {"actor": {"moved": 1}}, "learning.actor.moved = 1: true or false was expected"),
        (
            "learning",
            {"actor": {"lr": 1}},
            "learning.actor.lr: no such entry; there is moved, nonfinite_in_a_row, skipped, updates",
        ),
        ("best_steps", "last", "best_steps = 'last': a whole number of at least 0 was expected"),
        ("best", "high", "best = 'high': a number was expected"),
        ("rows_fingerprint", 7, "rows_fingerprint = 7: a text was expected"),
        ("spent", {"steps": "long"}, "spent.steps = 'long': a number was expected"),
        ("spent", {"naps": 1.0}, "spent.naps = 1.0: seconds of start, steps, .* were expected"),
        ("spent", {"steps": -1.0}, "spent.steps = -1.0: seconds, 0 or more, were expected"),
        ("algorithm", None, "algorithm = None: an object was expected"),
        ("files", {"metrics.jsonl": "20"}, "files.metrics.jsonl = '20': a whole number of at least 0 was expected"),
    ],
)
def test_what_is_not_as_it_was_written_is_told_before_the_start(
    tmp_path: Path, entry: str, value: Any, told: str
) -> None:
    """The fingerprint of the rows is read before anything is started, and with it all of the state."""
    with pytest.raises(CheckpointError, match=rf"step-000002/trainer.json: {told}$"):
        checkpoint.rows_fingerprint(crafted(tmp_path, **{entry: value}))


def test_a_state_that_the_algorithm_cannot_take_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"trainer.json: algorithm = .*Adaptive.restore cannot take it: KeyError: 'coefficient'"
    ):
        checkpoint.load(running(), crafted(tmp_path, algorithm={"other": 1}))


def test_a_role_that_the_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    config, folder = load("train", ["experiment=addition"]), RunFolder(tmp_path)
    checkpoint.save(config, running(), folder, Progress(1))
    other = running()
    other.groups["critic"] = Group("critic", CriticRole, Layout(), [], other.supervisor)
    with pytest.raises(HybridFlowError, match="step-000001 has no critic"):
        checkpoint.load(other, folder.checkpoints / "step-000001")
