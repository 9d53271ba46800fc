"""Record of a stage of `hybridflow rlhf` in its run folder, by which a later call knows that it is complete.

A stage is complete if its run ended with these settings, after stages that had theirs, and its model is there. The
contents of folders that are not a stage's own are not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

from hybridflow.config import Config, compose, resume_diff, yaml_file
from hybridflow.errors import ConfigError, shown
from hybridflow.json_file import a_number, read_object

RECORD = "stage.json"


@dataclass(frozen=True)
class Record:
    """Record of a stage in its run folder.

    Attributes:
        key: of the settings that it has or had, see `key_of`.
        seconds: that it took; None: it has not ended.
    """

    key: str
    seconds: float | None = None

    def write(self, folder: Path) -> None:
        """Write the record into a run folder."""
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{RECORD}.tmp"
        beside.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        beside.replace(folder / RECORD)  # at once: whenever the process ends, the record is whole


@dataclass(frozen=True)
class Verdict:
    """Decision about a stage.

    Attributes:
        complete: there is nothing to do.
        afresh: it must not go on from a checkpoint of its own.
        why: in words, if there is something to say.
    """

    complete: bool = False
    afresh: bool = False
    why: str = ""


def read(folder: Path) -> Record | None:
    """Read the record of a run folder, if it has one. Raises ConfigError naming one that is not what `write` writes."""
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        record = read_object(file)
        key = record.get("key")
        seconds = record.get("seconds")
        if not isinstance(key, str) or record.keys() - {"key", "seconds"}:
            raise ValueError(f"{file}: {shown(record)}: a key, and seconds, were expected")
        return Record(key, None if seconds is None else a_number(seconds, f"{file}: seconds"))
    except ValueError as error:
        raise ConfigError(f"{error}. Remove the file, and the stage is run again") from error


@contextmanager
def begun(folder: Path, key: str) -> Iterator[None]:
    """Record that a run with these settings has begun and not ended.

    If that run changes nothing, since its start fails, the record is afterwards as it was before.
    """
    earlier = mark(folder)
    file = folder / RECORD
    text = file.read_text(encoding="utf-8") if file.is_file() else None
    Record(key).write(folder)
    try:
        yield
    finally:
        if mark(folder) == earlier:
            file.unlink() if text is None else file.write_text(text, encoding="utf-8")


def mark(folder: Path) -> tuple[int, int] | None:
    """Identify the writing of a run folder's settings: a run writes them once nothing but its training can fail."""
    file = folder / "config.yaml"
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.is_file() else None


def key_of(config: Config, before: str) -> str:
    """Hash a stage's settings, but for where it resumes, with `before`, the key of the stage before it."""
    settings = deepcopy(config)
    settings.trainer.resume = "auto"
    return hashlib.sha256(f"{before}\n{compose.resolved_yaml(settings)}".encode()).hexdigest()


def judge(config: Config, key: str, folder: Path, follows_new: bool) -> Verdict:
    """Decide what is to be done about a stage with these settings and this run folder.

    Args:
        follows_new: a stage before it runs again.
    """
    record = read(folder)
    changed = _differences(config, folder)
    if config.trainer.resume == "never":
        return Verdict(why="trainer.resume=never" if record else "")
    if record is not None and record.key == key and not changed and not follows_new:
        if record.seconds is not None and (folder / "model").is_dir():
            return Verdict(complete=True)
        return Verdict(why="it had not ended")
    if record is None:
        return Verdict(afresh=True)
    if changed and not follows_new:
        return Verdict(afresh=True, why=f"other settings than before: {'; '.join(changed)}")
    return Verdict(afresh=True, why=f"a stage before it {'runs again' if follows_new else 'has changed'}")


def _differences(config: Config, folder: Path) -> list[str]:
    """List the differences from what the run in that folder was made with; where it resumed does not matter."""
    file = folder / "config.yaml"
    if not file.is_file():
        return []
    before = yaml_file.checked(file)
    with yaml_file.named(file):
        by_key = resume_diff.differences(before, compose.resolved_yaml(config))
    return [text for key, text in by_key.items() if key != "trainer.resume"]
