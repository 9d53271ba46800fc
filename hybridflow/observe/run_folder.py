"""The run folder: what a run leaves behind, in files that anyone can read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from hybridflow.errors import ConfigError
from hybridflow.json_file import read_object
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.json_lines import Record, read_lines
from hybridflow.observe.line_file import LineFile, size_of
from hybridflow.observe.plain_json import as_json
from hybridflow.observe.run_lock import LOCK, PRIVATE
from hybridflow.observe.secret_values import redacted

EARLIER = re.compile(r"earlier-(\d+)")
RECORD = "run.json"
RECORDS = (RECORD, "events.jsonl", "timeline.json", "traces", "logs")
TRACKERS = ("tensorboard", "wandb", "mlflow")
EVALUATION = "evaluation.json"
RESULTS = ("metrics.jsonl", "rollouts", "validation", "nonfinite", EVALUATION, "model", "checkpoints")
JOURNAL = "journal"
PARTS = ("config.yaml", *RESULTS, *RECORDS, *TRACKERS, JOURNAL)
MARKS = (LOCK, "checkpoints/LATEST", "checkpoints/BEST")  # files of a line


class RunFolder:
    """Run folder: what one run leaves behind. docs/run-folder.md says what is in each file.

    A run that begins calls `archive_previous`, one that is resumed calls `truncate_to`, before it writes anything; both
    only once nothing but the training itself can still fail.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._metrics = LineFile(self.path / "metrics.jsonl")
        self._events = LineFile(self.path / "events.jsonl")

    def wait_for_room(self, say: Callable[[str], None]) -> None:
        """From now on, let lines of metrics and events wait in memory while the disk takes no more.

        Args:
            say: what is told of it.
        """
        for file in (self._metrics, self._events):
            file.wait_for_room(say)

    def close(self) -> None:
        """Write lines that wait, or tell that they are lost."""
        for file in (self._metrics, self._events):
            file.close()

    @property
    def rollouts(self) -> Path:
        """Folder into which the ranks write rows."""
        return self.path / "rollouts"

    @property
    def validation(self) -> Path:
        """Folder into which the ranks write the answers of validations."""
        return self.path / "validation"

    @property
    def nonfinite(self) -> Path:
        """Folder of the rows that a run was ended by, since too many gradients were not finite."""
        return self.path / "nonfinite"

    @property
    def model(self) -> Path:
        """Folder of the trained model, in Hugging Face's format."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder in which the run's state is saved."""
        return self.path / "checkpoints"

    @property
    def journal(self) -> Path:
        """Folder into which ranks write the rows of a call as they finish."""
        return self.path / JOURNAL

    @property
    def timeline(self) -> Path:
        """File of the calls that ranks carried out, and when."""
        return self.path / "timeline.json"

    @property
    def traces(self) -> Path:
        """Folder into which ranks write what torch computed in a step."""
        return self.path / "traces"

    @property
    def logs(self) -> Path:
        """Folder into which each process writes its log."""
        return self.path / "logs"

    def write_config(self, text: str) -> None:
        """Write the resolved configuration as YAML."""
        file = self.path / "config.yaml"
        with writing(file):
            self.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")

    def log(self, metrics: Mapping[str, object]) -> None:
        """Append a line to `metrics.jsonl`. A metric that is not finite is null there."""
        self._metrics.add(as_json(metrics))

    def metric_lines(self) -> list[Record]:
        """Read `metrics.jsonl`; a line that a killed run has left half, or that was edited, is left out."""
        return read_lines(self.path / "metrics.jsonl")

    def event(self, event: str, **facts: object) -> None:
        """Append a line to `events.jsonl`, which a resumed run goes on with: nothing of it is ever cut off."""
        self._events.add(redacted(as_json({"time": now(), "event": event, **facts})))

    def events(self) -> list[Record]:
        """Read `events.jsonl`; a line that a killed run has left half is left out."""
        return read_lines(self.path / "events.jsonl")

    def last_sign(self) -> float:
        """Return when a file that tells of a run was last written to, in seconds since the epoch; 0: there is none."""
        files = (self.path / "metrics.jsonl", self.path / "events.jsonl", *self.logs.glob("*.log"))
        return max([file.stat().st_mtime for file in files if file.is_file()], default=0.0)

    def write_record(self, record: Mapping[str, object]) -> None:
        """Write `run.json`; at once, so that whoever reads it has the whole."""
        file = self.path / RECORD
        beside = self.path / f"{RECORD}.tmp"
        with writing(file):
            beside.write_text(redacted(as_json(record, indent=1)) + "\n", encoding="utf-8")
            beside.replace(file)

    def record(self) -> Record:
        """Read `run.json`; {} if there is none that can be read: a run of an earlier version, or a broken disk."""
        try:
            return read_object(self.path / RECORD)
        except (OSError, ValueError):
            return {}

    def write_evaluation(self, result: Mapping[str, object]) -> None:
        """Write `evaluation.json`."""
        file = self.path / EVALUATION
        with writing(file):
            file.write_text(as_json(result, indent=2) + "\n", encoding="utf-8")

    def evaluation(self) -> Record:
        """Read `evaluation.json`; {} if there is none that can be read: the folder is that of a training."""
        try:
            return read_object(self.path / EVALUATION)
        except ValueError:
            return {}

    def unsaved(self) -> bool:
        """Tell whether an earlier run of this name began and neither ended nor saved anything."""
        begun = (self.path / "config.yaml").exists() or (self.path / "metrics.jsonl").exists()
        return begun and not self.model.exists() and not any(self.checkpoints.glob("step-*"))

    def archive_previous(self, *, keep_journal: bool = False) -> Path | None:
        """Move what an earlier run of the same name left to `earlier-<n>/`, and return where that is.

        Nothing is overwritten: n is one more than the largest there is. None: nothing was left.

        Args:
            keep_journal: leave it where it is, for this run.
        """
        parts = [part for part in PARTS if part != JOURNAL or not keep_journal]
        left = [self.path / part for part in parts if (self.path / part).exists()]
        if not left:
            return None
        names = [EARLIER.fullmatch(entry.name) for entry in self.path.iterdir()]
        number = 1 + max((int(name.group(1)) for name in names if name), default=0)
        aside = self.path / f"earlier-{number}"
        with writing(aside):
            aside.mkdir()
            for part in left:
                part.rename(aside / part.name)
        return aside

    def sizes(self, *, synced: bool = True) -> dict[str, int]:
        """Return the bytes that each file which grows line by line has now; if `synced`, they have reached the disk.

        Raises DiskError if `synced` and lines that wait still find no room.
        """
        if synced:
            self._metrics.write_waiting()
        files = self._growing()
        for file in files if synced else ():
            _flush(file)
        sizes = {file.relative_to(self.path).as_posix(): size_of(file) for file in files}
        if self._metrics.size:
            sizes[self._metrics.path.name] = self._metrics.size
        return sizes

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise ConfigError if a file has become shorter than `sizes` gave."""
        for name, size in sizes.items():
            file = self.path / name
            now = self._metrics.size if file == self._metrics.path else size_of(file)
            if now < size:
                raise ConfigError(
                    f"{file} has {now} bytes, and had {size} when the checkpoint was made: put it back, or go on "
                    "under another run.name with trainer.resume=PATH of the checkpoint"
                )

    def truncate_to(self, sizes: Mapping[str, int]) -> None:
        """Truncate the files to what `sizes` gave then: later lines go.

        Raises ConfigError, before anything is changed, if a file has become shorter.
        """
        self.check_sizes(sizes)
        self._metrics.truncate(sizes.get(self._metrics.path.name, 0))
        for file in self._growing():
            name = file.relative_to(self.path).as_posix()
            if name not in sizes:
                file.unlink()
            elif file != self._metrics.path:
                with writing(file):
                    os.truncate(file, sizes[name])

    def _growing(self) -> list[Path]:
        metrics = self.path.glob(self._metrics.path.name)
        return sorted([*metrics, *self.rollouts.glob("*.jsonl"), *self.validation.rglob("*.jsonl")])


def of_another_kind(folder: Path) -> Iterator[str]:
    """Tell what has the name of a part of a run folder, and is no file, or no folder, as that part is.

    To open one may wait for ever, as for a pipe; and where a link leads nowhere, a disk may only be away.
    """
    files = [folder / part for part in (*PARTS, *MARKS) if Path(part).suffix or part in MARKS]
    inside = ("rollouts", "*.jsonl"), ("validation", "**/*.jsonl"), (JOURNAL, "*.rows")
    files += [file for part, names in inside for file in (folder / part).glob(names)]
    for path in (*files, *(folder / part for part in PARTS if folder / part not in files)):
        wanted = "a file" if path in files else "a folder"
        kind = "a file" if path.is_file() else "a folder" if path.is_dir() else "neither a file nor a folder"
        if os.path.lexists(path) and kind != wanted:
            yield f"{path} is {kind if path.exists() else 'a link that leads nowhere'}; {wanted} was expected"


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def now() -> str:
    """Return the time, of UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
