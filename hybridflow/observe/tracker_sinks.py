"""Sinks that hand metrics to trackers: TensorBoard, Weights & Biases, MLflow, Trackio.

Each imports its client when it is opened. Nothing listens, and nothing leaves the machine but to where the settings or
the client's own environment variables point; what clients report of themselves to their makers is turned off.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast

import yaml

from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import MetricSink, SinkContext, metric_sinks

ABANDON_WAIT_S = 5.0
CLIENT_WAIT_S = 45.0  # less than a sink has in all, so that a client says itself what it waits for


@metric_sinks.register("tensorboard")
class TensorBoardSink(MetricSink):
    """Events in `tensorboard/` of the run folder: `tensorboard --logdir runs`."""

    def __init__(self, context: SinkContext, dir: str = "") -> None:
        super().__init__(context)
        # The writer alone: torch's needs seconds to import, and a quarter of a gigabyte.
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(dir or str(context.folder.path / "tensorboard"))
        if context.steps_taken:
            self._purge(context.steps_taken)

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._writer.close()

    def _purge(self, step: int) -> None:
        """Drop what was written of this step and later ones, but for the validation before the checkpoint."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))
        validation = _line_of(self.context.folder, step)
        if validation:
            self.log_validation(step, validation)


@metric_sinks.register("wandb")
class WandbSink(MetricSink):
    """Run of Weights & Biases, whose id is kept in the run folder: a resumed run goes on with its own."""

    package = "wandb"

    def __init__(
        self,
        context: SinkContext,
        project: str = "hybridflow",
        entity: str = "",
        group: str = "",
        tags: Sequence[str] = (),
        mode: str = "",
        dir: str = "",
    ) -> None:
        super().__init__(context)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of its own crashes, to its makers
        import wandb

        folder = Path(dir) if dir else context.folder.path
        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            console="off",
            quiet=True,
            init_timeout=CLIENT_WAIT_S,
            finish_timeout=CLIENT_WAIT_S,
            finish_timeout_raises=True,
        )
        self._run = wandb.init(
            project=project,
            entity=entity or None,
            group=group or None,
            tags=list(tags),
            name=context.config.run.name,
            id=_kept_id(context.folder.path / "wandb" / "run_id"),
            resume="allow",
            mode=cast(Any, mode or None),  # else WANDB_MODE
            dir=str(folder),
            config=_settings(context),
            settings=quiet,
        )
        # Its own count of steps never goes back, and a run that is resumed does.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        self._run.finish(exit_code=int(self.run_failed))

    @classmethod
    def abandon(cls) -> None:
        """End the client's own process, which the end of this one would wait for; its files are there for a sync."""
        for pid in _children("wandb-core"):
            os.kill(pid, signal.SIGKILL)
        forgetting = Thread(target=cls._forget, daemon=True)
        forgetting.start()
        forgetting.join(ABANDON_WAIT_S)

    @staticmethod
    def _forget() -> None:
        """Take back what the client does when this process ends: it would complain that its own is gone."""
        import wandb

        with suppress(Exception):
            wandb.teardown()


@metric_sinks.register("mlflow")
class MlflowSink(MetricSink):
    """Run of MLflow: at MLFLOW_TRACKING_URI, or else in `mlflow/` of the run folder."""

    package = "mlflow"

    def __init__(self, context: SinkContext, tracking_uri: str = "", experiment: str = "hybridflow") -> None:
        super().__init__(context)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        own = context.folder.path / "mlflow"
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own.as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(uri)
        file = own / "run_id"
        self._id = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        if self._id:
            self._client.set_terminated(self._id, "RUNNING")
            return
        self._id = self._begin(experiment)
        own.mkdir(parents=True, exist_ok=True)
        file.write_text(self._id + "\n", encoding="utf-8")

    def _begin(self, experiment: str) -> str:
        from mlflow.entities import Param

        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        run: str = self._client.create_run(number, run_name=self.context.config.run.name).info.run_id
        params = [Param(_of_mlflow(key), value[:500]) for key, value in _flat(_settings(self.context)).items()]
        for first in range(0, len(params), 100):  # its servers take no more at once, nor longer ones
            self._client.log_batch(run, params=params[first : first + 100])
        return run

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(_of_mlflow(name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=values)

    def close(self) -> None:
        self._client.set_terminated(self._id, "FAILED" if self.run_failed else "FINISHED")


@metric_sinks.register("trackio")
class TrackioSink(MetricSink):
    """Run of Trackio, in its folder (TRACKIO_DIR): `trackio show`."""

    package = "trackio"

    def __init__(self, context: SinkContext, project: str = "hybridflow", group: str = "", space_id: str = "") -> None:
        super().__init__(context)
        import trackio

        self._run = trackio.init(
            project,
            name=context.config.run.name,
            group=group or None,
            space_id=space_id or None,  # else TRACKIO_SPACE_ID
            config=_settings(context),
            resume="allow" if context.steps_taken else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _settings(context: SinkContext) -> dict[str, Any]:
    from hybridflow.config.compose import resolved_yaml

    settings: dict[str, Any] = yaml.safe_load(resolved_yaml(context.config))
    return settings


def _of_mlflow(name: str) -> str:
    """Return a name as MLflow takes it, whose names are paths of files: `validation/pass@4` has an `_` there.

    A file is no folder of others, so `validation/accuracy/SOURCE` is `validation/accuracy.SOURCE`.
    """
    parts = (re.sub(r"[^\w. -]", "_", part) for part in name.split("/"))
    group, *inside = ("_" if part in ("", ".", "..") else part for part in parts)
    return "/".join([group, ".".join(inside)]) if inside else group


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Write a tree of settings as one text a key."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": str(value)}
    return flat


def _children(program: str) -> list[int]:
    """Return the processes that this one has started and that run a program of that name."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            name, _, rest = file.read_text(encoding="utf-8", errors="replace").partition("(")[2].rpartition(")")
            if name == program and int(rest.split()[1]) == os.getpid():
                found.append(int(file.parent.name))
    return found


def _kept_id(file: Path) -> str:
    """Return the id in a file, which is made with a new one if it is not there."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(8) + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _line_of(folder: RunFolder, step: int) -> dict[str, float]:
    """Return the numbers of a validation in `metrics.jsonl`, without its prefix; {} if it has none of that step."""
    records = [record for record in folder.metric_lines() if record.pop("step", None) == step]
    return {name: math.nan if value is None else value for record in records for name, value in record.items()}
