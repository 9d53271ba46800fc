"""A run's checkpoints on disk: each is there whole or not at all, whenever and however the process ends.

    checkpoints/
      step-000010/          `manifest.json` names every file in it with size and sha256
      step-000020/
      LATEST                the name of the newest, for people and scripts
      BEST                  the name of the best by `trainer.keep_best`
      .tmp-step-000030/     one that is being written

A folder gets its name `step-…` by a rename, after everything in it and its manifest have reached the disk; that is the
commit. So whatever bears such a name is whole, `LATEST` or not. What else is there, an interrupted commit
left; the next one sweeps it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hybridflow.errors import HybridFlowError, shown
from hybridflow.json_file import a_whole, read_object
from hybridflow.observe.disk_errors import writing

MANIFEST = "manifest.json"
LATEST = "LATEST"
BEST = "BEST"
FORMAT = 1
MAX_PASSES = 20
NAME = re.compile(r"step-([0-9]{6}|[1-9][0-9]{6,17})")  # as `Checkpoints.at` writes it


class CheckpointError(HybridFlowError):
    """Checkpoint that cannot be used; the message names it, and the file. Raised before anything was started."""

    exit_code: ClassVar[int] = 2


class Disk:
    """Operations that a commit is made of. What one did has reached the disk when it returns."""

    def make(self, folder: Path) -> None:
        """Make a folder, and those above it."""
        folder.mkdir(parents=True)

    def write(self, file: Path, text: str) -> None:
        """Write a file; it may be there half written if the process dies meanwhile."""
        with writing(file):
            file.write_text(text, encoding="utf-8")
        self.flush(file)
        self.flush(file.parent)

    def flush(self, path: Path) -> None:
        """See to it that what was written to a file, or the names in a folder, outlive a loss of power."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder its new name, at once; another file of that name is replaced."""
        os.replace(old, new)
        self.flush(new.parent)

    def remove(self, folder: Path) -> None:
        """Remove a folder, file by file."""
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Entry:
    """File of a checkpoint."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """List of what a checkpoint consists of.

    Attributes:
        step: steps that had been taken.
        versions: of the packages that wrote it.
        files: by path inside the folder.
    """

    step: int
    versions: Mapping[str, str]
    files: Mapping[str, Entry]

    def to_json(self) -> str:
        """Write the text of `manifest.json`."""
        files = {name: vars(entry) for name, entry in sorted(self.files.items())}
        whole = {"format": FORMAT, "step": self.step, "versions": dict(self.versions), "files": files}
        return json.dumps(whole, indent=1) + "\n"

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read a checkpoint's manifest. Raises CheckpointError if it has none that can be read."""
        try:
            whole = read_object(folder / MANIFEST)
            written = whole.get("format")
            if type(written) is not int or written != FORMAT:  # True is 1 too
                raise CheckpointError(f"{folder}: its format is {shown(written)}, this version reads {FORMAT}")
            return _manifest(whole, NAME.fullmatch(folder.name))
        except ValueError as error:
            raise CheckpointError(
                f"{folder} is not a checkpoint: its {MANIFEST} cannot be read ({error}). Remove the folder to go on "
                "from another"
            ) from error


def _manifest(whole: dict[str, Any], name: re.Match[str] | None) -> Manifest:
    """Check what the object in a manifest says. Raises ValueError naming what is not as it was written."""
    step = a_whole(whole.get("step"), "step")
    if name and step != int(name[1]):
        raise ValueError(f"step = {step}, in the folder {name[0]}")
    versions = whole.get("versions")
    files = whole.get("files")
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        raise ValueError(f"versions = {shown(versions)}: an object of texts was expected")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"files = {shown(files)}: an object was expected")
    return Manifest(step, versions, {name: _entry_of(name, entry) for name, entry in files.items()})


def _entry_of(name: str, entry: object) -> Entry:
    if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
        raise ValueError(f"{name}: {shown(entry)}: size and sha256 were expected")
    if not isinstance(entry["sha256"], str) or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"{name}: sha256 = {shown(entry['sha256'])}: 64 hexadecimal digits were expected")
    return Entry(a_whole(entry["size"], f"{name}: size"), entry["sha256"])


class Checkpoints:
    """Checkpoints of one run."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = disk or Disk()

    def steps(self) -> list[int]:
        """List the steps of which there is a checkpoint, oldest first."""
        names = [NAME.fullmatch(entry.name) for entry in self.path.iterdir()] if self.path.is_dir() else []
        return sorted(int(name.group(1)) for name in names if name)

    def newest(self) -> Path | None:
        """Return the newest checkpoint, if there is any."""
        steps = self.steps()
        return self.at(steps[-1]) if steps else None

    def at(self, step: int) -> Path:
        """Return the folder in which the checkpoint of a step is, or would be."""
        return self.path / f"step-{step:06d}"

    def begin(self, step: int) -> Path:
        """Make an empty folder to write a step's checkpoint into. What interrupted commits left is swept away."""
        self.sweep()
        folder = self.path / f".tmp-{self.at(step).name}"
        self._disk.make(folder)
        return folder

    def sweep(self) -> None:
        """Remove what interrupted commits left, so that it does not fill the disk."""
        for left in [*self.path.glob(".tmp-step-*"), *self.path.glob(".old-step-*")]:
            self._disk.remove(left)

    def abandon(self, step: int) -> None:
        """Remove what was written since `begin`: this save has failed.

        Ranks that have just been ended may still have written meanwhile, so it may take more than one pass.
        """
        folder = self.path / f".tmp-{self.at(step).name}"
        for _ in range(MAX_PASSES):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                return
            time.sleep(0.1)

    def commit(self, step: int, versions: Mapping[str, str]) -> Path:
        """Make what is in the folder of `begin` the newest checkpoint; where it is now."""
        folder = self.path / f".tmp-{self.at(step).name}"
        final = self.at(step)
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
            self._disk.flush(path)
        self._disk.write(folder / MANIFEST, Manifest(step, versions, entries(folder)).to_json())
        self._disk.rename(folder, final)
        self._name(LATEST, final)
        return final

    def _name(self, name: str, folder: Path) -> None:
        """Write the name of a checkpoint into the file `name`."""
        self._disk.write(self.path / f"{name}.tmp", folder.name + "\n")
        self._disk.rename(self.path / f"{name}.tmp", self.path / name)

    def _named_best(self) -> int | None:
        """Return the step that BEST names; None if it names none."""
        file = self.path / BEST
        name = NAME.fullmatch(file.read_text(encoding="utf-8", errors="replace").strip()) if file.is_file() else None
        return int(name.group(1)) if name else None

    def keep(self, last: int, best: int | None = None) -> None:
        """Remove all but the newest `last` and that of step `best`, which the file BEST names.

        If that of `best` could not be saved, the one stays that BEST has named so far.
        """
        if best in self.steps():
            self._name(BEST, self.at(best))
        elif best is not None:
            best = self._named_best()
        for step in (step for step in self.steps()[:-last] if step != best):
            doomed = self.path / f".old-{self.at(step).name}"
            self._disk.rename(self.at(step), doomed)  # at once, so that none is ever seen half removed
            self._disk.remove(doomed)


def entries(folder: Path) -> dict[str, Entry]:
    """List every file below a folder but its manifest."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST]
    with ThreadPoolExecutor() as threads:  # hashing lets go of the interpreter's lock
        hashed = threads.map(_entry, files)
        return {path.relative_to(folder).as_posix(): entry for path, entry in zip(files, hashed, strict=True)}


def verify(folder: Path) -> Manifest:
    """Verify a checkpoint's files and return its manifest. Raises CheckpointError naming a file that differs."""
    manifest = Manifest.read(folder)
    try:
        present = entries(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: {error.filename}: {error.strerror}; nothing was loaded") from error
    for name, expected in manifest.files.items():
        if name not in present:
            problem = "is missing"
        elif present[name].size != expected.size:
            problem = f"has {present[name].size} bytes, {expected.size} expected"
        elif present[name].sha256 != expected.sha256:
            problem = "is not what was written: its sha256 differs"
        else:
            continue
        raise CheckpointError(
            f"{folder}: {name} {problem}; nothing was loaded. Remove the folder to go on from another"
        )
    return manifest


def _entry(file: Path) -> Entry:
    with file.open("rb") as stream:
        return Entry(os.fstat(stream.fileno()).st_size, hashlib.file_digest(stream, "sha256").hexdigest())
