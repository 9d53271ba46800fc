"""Records of a run, read from its folder: the one reader of `watch`, `report` and alarms, of a run that goes on too.

A folder is read as it is found: files that are not there yet, a last line that is half written, lines that somebody has
edited. What is there of that is returned, and nothing raises. docs/run-folder.md says what each file means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridflow.errors import ConfigError
from hybridflow.observe.json_lines import Record, bytes_of, object_of
from hybridflow.observe.metrics import TIMES
from hybridflow.observe.run_folder import EARLIER, RECORD, RunFolder
from hybridflow.observe.run_lock import LOCK, is_held
from hybridflow.observe.timeline import CONTROLLER, CallSpan

CONFIG = "config.yaml"
SIGNS = (RECORD, CONFIG, "metrics.jsonl", "events.jsonl", LOCK)  # of a run folder, one of which is always there
VALIDATION = "validation/"
RUN_TIMES = f"{TIMES}run/"
TAIL_BYTES = 2**18  # of a file of rows, in which its newest ones are looked for
_NUMBER = re.compile(r"\d+")


@dataclass
class MetricHistory:
    """Metrics of a run, each step and each validation once: where it went back, what was undone is gone.

    Attributes:
        steps: lines of steps in their order; `step` counts from 0.
        validations: lines of validations in their order; `step` is how many steps had been taken.
    """

    steps: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)

    def take(self, line: Record) -> bool:
        """Take in a line of `metrics.jsonl`; tell whether it is one of a step or a validation."""
        step = line.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**63:
            return False
        validates = any(name.startswith(VALIDATION) for name in line)
        while self.steps and self.steps[-1]["step"] >= step:
            self.steps.pop()
        while self.validations and self.validations[-1]["step"] >= step + (not validates):
            self.validations.pop()
        (self.validations if validates else self.steps).append(line)
        return True


@dataclass(frozen=True)
class RunRecords:
    """What a run folder tells of its run.

    Attributes:
        path: of the folder.
        record: `run.json`; {} if there is none.
        settings: `config.yaml`, every key, as nested dictionaries; {} if there is none.
        metrics: of steps and validations.
        events: lines of `events.jsonl`, each with `time` and `event`, also of what was undone.
        evaluation: `evaluation.json`; {} where the run was no evaluation.
    """

    path: Path
    record: Record
    settings: Record
    metrics: MetricHistory
    events: list[Record]
    evaluation: Record

    @property
    def name(self) -> str:
        """Name of the run, else of its folder."""
        return str(self.record.get("name") or self.path.name)

    def rows(self, steps: Collection[int] | None = None) -> Iterator[Record]:
        """Read the rows of rollouts, as `read_rows`."""
        return read_rows(self.path / "rollouts", steps)

    def spans(self) -> list[CallSpan]:
        """Read the calls of the steps that `timeline.json` has, as `read_spans`."""
        return read_spans(self.path / "timeline.json")


def find_run(place: str | Path) -> Path:
    """Return the run folder at a place. Raises ConfigError, saying what is there, if there is none."""
    path = Path(place).absolute()
    if not path.is_dir():
        raise ConfigError(f"{place}: {'no folder' if path.exists() else 'there is no such folder'}; give a run folder")
    if any((path / sign).exists() for sign in SIGNS):
        return path
    inside = sorted((entry.name for entry in path.iterdir() if (entry / CONFIG).is_file()), key=_by_number)
    inside = [name for name in inside if not EARLIER.fullmatch(name)]
    hint = f"; it has {len(inside)} inside, such as {Path(place) / inside[0]}" if inside else ""
    raise ConfigError(f"{place} is no run folder (it would have a {CONFIG}){hint}")


def read_records(path: Path) -> RunRecords:
    """Read what the folder of a run has now; `find_run` says whether it is one."""
    folder = RunFolder(path)
    metrics = MetricHistory()
    for line in folder.metric_lines():
        metrics.take(line)
    settings = read_settings(path)
    return RunRecords(folder.path, folder.record(), settings, metrics, folder.events(), folder.evaluation())


def read_settings(path: Path) -> Record:
    """Read the settings of a run as it resolved them; {}: there are none that can be read."""
    from omegaconf import OmegaConf

    from hybridflow.config import yaml_file

    try:
        tree: Any = OmegaConf.to_container(yaml_file.load(path / CONFIG))
    except (ConfigError, OSError):
        return {}
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def status_of(path: Path, record: Mapping[str, Any]) -> str:
    """Return how a run is: `starting`, `running`, or as it ended: `ended`, `failed`, `interrupted`, `killed`.

    Args:
        record: its `run.json`, which says `running` too where a process was killed.
    """
    told = record.get("status")
    if is_held(path, record.get("process")):
        return "running" if told == "running" else "starting"
    if is_held(path):  # by a process that goes on with it, once it has started
        return "starting"
    return "killed" if told == "running" else str(told or "unknown")


def read_rows(folder: Path, steps: Collection[int] | None = None) -> Iterator[Record]:
    """Yield the rows in `rollouts/` or `validation/`, file by file: each has `step`, `prompt`, `response` and more.

    Args:
        steps: those whose rows are wanted; None: all.
    """
    files = filter(Path.is_file, folder.glob("*.jsonl"))
    for file in sorted(files, key=lambda file: _by_number(file.name)):
        with suppress(OSError), file.open("rb") as lines:  # a new run may have moved it just now
            for line in lines:
                row = object_of(line)
                if row is not None and isinstance(row.get("step"), int) and (steps is None or row["step"] in steps):
                    yield row


def newest_rows(file: Path) -> list[Record]:
    """Return the rows of the newest step at the end of a file of rows; [] if there is none, or no file.

    Of a step that is longer than `TAIL_BYTES` these are its last ones.
    """
    lines = bytes_of(file, TAIL_BYTES).splitlines()
    rows = [row for row in map(object_of, lines) if row and "response" in row and isinstance(row.get("step"), int)]
    newest = max((row["step"] for row in rows), default=0)
    return [row for row in rows if row["step"] == newest]


def read_spans(file: Path) -> list[CallSpan]:
    """Return the calls in `timeline.json`, those of the controller among them (its `pool` is ""); [] without a file."""
    pools: dict[Any, str] = {}
    spans = []
    for line in bytes_of(file).splitlines():
        match object_of(line.rstrip(b",")):
            case {"name": "process_name", "pid": int(pid), "args": {"pool": str(pool)}}:
                pools[pid] = pool
            case {"ph": "X", "name": str(name), "cat": str(role), "pid": int(pid), "tid": int(rank), **rest}:
                span = _span(pools.get(pid, CONTROLLER), rank, role, name, rest)
                spans += [span] if span else []
    return spans


def seconds_spent(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of a run so far by what they went into, from a line of a step; {}: nobody counts them."""
    times = {name.removeprefix(RUN_TIMES): value for name, value in line.items() if name.startswith(RUN_TIMES)}
    return {kind: finite(value) or 0.0 for kind, value in times.items()}


def finite(value: object) -> float | None:
    """Return a metric as a number; None: it is none, or was not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have any number of digits
        return None
    return number if math.isfinite(number) else None


def _span(pool: str, rank: int, role: str, name: str, event: Mapping[Any, Any]) -> CallSpan | None:
    match event:
        case {"ts": ts, "dur": dur, "args": {"step": int() | None as step}}:
            began = finite(ts)
            took = finite(dur)
            if began is not None and took is not None:
                return CallSpan(pool, rank, role, name.removeprefix(f"{role}."), step, began / 1e6, took / 1e6)
    return None


def _by_number(name: str) -> tuple[int, str]:
    """Return a key by which rank2 comes before rank10."""
    number = _NUMBER.search(name)
    return int(number.group()) if number else -1, name
