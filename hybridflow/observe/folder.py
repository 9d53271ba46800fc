"""The run folder: what a run leaves behind, in files that anyone can read."""

from __future__ import annotations

import json
from pathlib import Path

PARTS = ("config.yaml", "metrics.jsonl", "rollouts", "model")


class RunFolder:
    """`config.yaml`, `metrics.jsonl`, `rollouts/` and `model/` of one run.

    What an earlier run of the same name left is moved to `earlier-<n>/`, never overwritten.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.path.mkdir(parents=True, exist_ok=True)
        self._set_aside()

    @property
    def rollouts(self) -> Path:
        """Where the ranks write rows."""
        return self.path / "rollouts"

    @property
    def model(self) -> Path:
        """The trained model, a Hugging Face folder."""
        return self.path / "model"

    def write_config(self, text: str) -> None:
        """The resolved configuration, as YAML."""
        (self.path / "config.yaml").write_text(text, encoding="utf-8")

    def log(self, metrics: dict[str, float]) -> None:
        """Append a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def _set_aside(self) -> None:
        left = [self.path / part for part in PARTS if (self.path / part).exists()]
        if not left:
            return
        number = 1 + sum(1 for _ in self.path.glob("earlier-*"))
        aside = self.path / f"earlier-{number}"
        aside.mkdir()
        for part in left:
            part.rename(aside / part.name)
