"""The run folder: what a run leaves behind, in files that anyone can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from hybridflow.errors import HybridFlowError

PARTS = ("config.yaml", "metrics.jsonl", "rollouts", "model", "checkpoints")


class RunFolder:
    """`config.yaml`, `metrics.jsonl`, `rollouts/`, `model/` and `checkpoints/` of one run.

    A run that begins calls `set_aside`, one that is resumed calls `cut`, before it writes anything.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def rollouts(self) -> Path:
        """Where the ranks write rows."""
        return self.path / "rollouts"

    @property
    def model(self) -> Path:
        """The trained model, a Hugging Face folder."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Where the run's state is saved."""
        return self.path / "checkpoints"

    def write_config(self, text: str) -> None:
        """The resolved configuration, as YAML."""
        (self.path / "config.yaml").write_text(text, encoding="utf-8")

    def log(self, metrics: dict[str, float]) -> None:
        """Append a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def set_aside(self) -> None:
        """Move what an earlier run of the same name left to `earlier-<n>/`; nothing is overwritten."""
        left = [self.path / part for part in PARTS if (self.path / part).exists()]
        if not left:
            return
        number = 1 + sum(1 for _ in self.path.glob("earlier-*"))
        aside = self.path / f"earlier-{number}"
        aside.mkdir()
        for part in left:
            part.rename(aside / part.name)

    def sizes(self) -> dict[str, int]:
        """The bytes that each file which grows line by line has now. They have reached the disk."""
        return {file.relative_to(self.path).as_posix(): _flushed_size(file) for file in self._growing()}

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Take these files back to what `sizes` gave then: later lines go.

        Raises HybridFlowError, before anything is changed, if a file has become shorter.
        """
        for name, size in sizes.items():
            file = self.path / name
            found = file.stat().st_size if file.exists() else 0
            if found < size:
                raise HybridFlowError(
                    f"{file} has {found} bytes, and had {size} when the checkpoint was made: put it back, or go on "
                    "under another run.name with trainer.resume=PATH of the checkpoint"
                )
        for file in self._growing():
            name = file.relative_to(self.path).as_posix()
            if name in sizes:
                os.truncate(file, sizes[name])
            else:
                file.unlink()

    def _growing(self) -> list[Path]:
        return sorted([*self.path.glob("metrics.jsonl"), *self.rollouts.glob("*.jsonl")])


def _flushed_size(file: Path) -> int:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        return os.fstat(stream.fileno()).st_size
