"""Trackers: what is handed to each comes out of its own reader, also of a run that was resumed. Nothing is sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.config.compose import compose
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import SinkContext, open_sinks
from hybridflow.observe.tracker_sinks import _of_mlflow
from hybridflow.preflight import load


@pytest.fixture(autouse=True)
def nothing_is_asked_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB", "MLFLOW", "TRACKIO"))]:
        monkeypatch.delenv(name)


def context(folder: Path, sink: str, steps_taken: int = 0, **options: object) -> SinkContext:
    config: Config = compose("train", ["experiment=addition", "run.name=mine/0"]).to_config()
    config.trainer.metric_sinks = [sink]
    config.trainer.sink_options = {sink: options}
    folder.mkdir(exist_ok=True)
    return SinkContext(config, RunFolder(folder), Live(), steps_taken)


def interrupted_and_resumed(folder: Path, sink: str, **options: object) -> None:
    """Steps 0 to 3 with a validation before steps 0 and 2; a checkpoint after step 1, from which it goes on."""
    for steps_taken, reward in ((0, 0.0), (2, 10.0)):
        with open_sinks([sink, "jsonl"], context(folder, sink, steps_taken, **options)) as sinks:
            for step in range(steps_taken, 4):
                if step % 2 == 0 and (step, steps_taken) != (2, 2):
                    sinks.log_validation(step, {"accuracy": step / 8, "accuracy/easy": 1.0})
                sinks.log_step(step, {"reward/mean": reward + step, "actor/kl": float("nan")})
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        if not steps_taken:
            (folder / "metrics.jsonl").write_text("".join(lines[:4]))  # as the checkpoint has it


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted_and_resumed(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    rewards = [(event.step, event.value) for event in events.Scalars("reward/mean")]
    assert rewards == [(0, 0.0), (1, 1.0), (2, 12.0), (3, 13.0)]
    assert [(event.step, event.value) for event in events.Scalars("validation/accuracy")] == [(0, 0.0), (2, 0.25)]


def test_tensorboards_writer_needs_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; import tensorboard.summary.writer.event_file_writer as writer; "
        f"writer.EventFileWriter({str(tmp_path)!r}).close(); "
        "print([name for name in ('torch', 'tensorflow', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("reward/mean", "reward/mean"),
        ("actor.model.path", "actor.model.path"),
        ("validation/pass@4/a:b", "validation/pass_4.a_b"),
        ("validation/accuracy/../x", "validation/accuracy._.x"),
        ("a//b é", "a/_.b é"),
    ],
)
def test_mlflow_takes_every_name(name: str, taken: str) -> None:
    validation = pytest.importorskip("mlflow.utils.validation")
    assert _of_mlflow(name) == taken
    validation._validate_metric_name(taken)


def test_mlflow_keeps_one_run_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the sink sets it for itself, for as long as the process is
    from mlflow.tracking import MlflowClient

    interrupted_and_resumed(tmp_path / "run", "mlflow", experiment="sums")
    client = MlflowClient((tmp_path / "run/mlflow").as_uri())
    experiment = client.get_experiment_by_name("sums")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine/0" and run.info.status == "FINISHED"
    assert run.data.params["algorithm.name"] == "ppo" and run.data.metrics["reward/mean"] == 13.0
    assert run.data.metrics["validation/accuracy.easy"] == 1.0, "of a source, beside that of all"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "reward/mean")]
    assert sorted(steps) == [0, 1, 2, 2, 3, 3]


IN_A_PROCESS = """
import sys
from pathlib import Path
from tests.observe.test_tracker_sinks import interrupted_and_resumed
interrupted_and_resumed(Path(sys.argv[1]), sys.argv[2], project="sums")
"""


def in_a_process(folder: Path, sink: str, **environment: str) -> str:
    """The same in a process of its own: these clients keep threads, processes and what they read of the environment."""
    command = [sys.executable, "-c", IN_A_PROCESS, str(folder), sink]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.processes
def test_wandb_offline_keeps_one_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    in_a_process(tmp_path / "run", "wandb", WANDB_MODE="offline")
    own = (tmp_path / "run/wandb/run_id").read_text().strip()
    kept = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert len(own) == 16 and kept and {file.name for file in kept} == {f"run-{own}.wandb"}
    content = b"".join(file.read_bytes() for file in kept)
    assert b"reward/mean" in content and b"validation/accuracy" in content and b"mine/0" in content


@pytest.mark.processes
def test_trackio_writes_into_its_own_folder(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    told = in_a_process(tmp_path / "run", "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    assert "Resumed existing run: mine/0" in told
    import sqlite3

    with sqlite3.connect(tmp_path / "trackio/sums.db") as database:
        rows = database.execute("select step, metrics from metrics where run_name = 'mine/0'").fetchall()
    rewards = {(step, json.loads(metrics).get("reward/mean")) for step, metrics in rows}
    assert {(0, 0.0), (3, 3.0), (2, 12.0), (3, 13.0)} <= rewards


WRONG = {
    "tensorboard.dri=here": r"sink_options\.tensorboard\.dri: no such option; did you mean 'dir'",
    "tensorboard.dir=3": r"sink_options\.tensorboard\.dir: 3 given, of type int; str was expected",
    "wandb.project=mine": r"wandb: given, but wandb is not among trainer\.metric_sinks",
    "tensorbord.dir=x": r"no metric sink is named 'tensorbord'; did you mean 'tensorboard'",
    "tensorboard=x": r"tensorboard: 'x' given; its options were expected",
}


@pytest.mark.parametrize("setting", WRONG)
def test_options_are_checked_before_the_start(setting: str) -> None:
    with pytest.raises(ConfigError, match=WRONG[setting]):
        load("train", ["experiment=addition", f"+trainer.sink_options.{setting}"])


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridflow.observe.sinks.find_spec", lambda name: None)
    expected = r"trainer\.metric_sinks: wandb needs the package wandb, .* pip install 'hybridflow\[wandb\]'"
    with pytest.raises(ConfigError, match=expected):
        load("train", ["experiment=addition", "trainer.metric_sinks=[jsonl,wandb]"])
