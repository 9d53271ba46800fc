"""A run on disk and the models in it: what it left at its end, and what its checkpoints hold.

A place is written as `runs/mine`, or with a checkpoint as `runs/mine:40` (after 40 steps), `runs/mine:best` or
`runs/mine:latest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridflow.algorithms import algorithms
from hybridflow.config import plugins, yaml_file
from hybridflow.config.model_roles import section
from hybridflow.config.schema import Config
from hybridflow.config.sections import schema
from hybridflow.errors import ConfigError, HybridFlowError, shown
from hybridflow.models import Head, read_shape
from hybridflow.models.weight_files import tensor_files
from hybridflow.observe.run_folder import RunFolder
from hybridflow.trainer.checkpoint_store import BEST, MANIFEST, CheckpointError, Checkpoints, Manifest, verify

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.yaml"


@dataclass(frozen=True)
class SavedModel:
    """Model of a run: of its end, or of a checkpoint.

    Attributes:
        run: the run folder.
        config: the settings that made it.
        checkpoint: None for the model of the run's end.
    """

    run: Path
    config: Config
    checkpoint: Path | None = None

    @property
    def role(self) -> str:
        """Role whose model it is."""
        return algorithms.get(self.config.algorithm.name).learner

    @property
    def head(self) -> Head:
        """Output of the model: that of a language model, or a score."""
        return Head.reward if self.role == "reward_model" else Head.lm

    @property
    def name(self) -> str:
        """Place of the model, as it is written."""
        return f"{self.run}:{self.steps}" if self.checkpoint else str(self.run)

    @cached_property
    def _verified(self) -> tuple[Path, Manifest]:
        """Return the checkpoint and its manifest, its files verified: once, as they may be many gigabytes."""
        assert self.checkpoint is not None, f"{self.run}: the model of a run's end has none"
        return self.checkpoint, verify(self.checkpoint)

    @property
    def steps(self) -> int:
        """Steps that had been taken. Raises CheckpointError if a file of the checkpoint is not what was written."""
        if self.checkpoint is not None:
            return self._verified[1].step
        return max((int(line["step"]) for line in self.validations), default=0)

    @cached_property
    def validations(self) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl` with validations, up to this model's steps if it is of a checkpoint."""
        lines = RunFolder(self.run).metric_lines()
        found = [line for line in lines if "validation/accuracy" in line and isinstance(line.get("step"), int)]
        return found if self.checkpoint is None else [line for line in found if line["step"] <= self.steps]

    @property
    def folder(self) -> Path:
        """Hugging Face folder with its config and its tokenizer: its own, else that which the run started from.

        Raises ConfigError if neither is there.
        """
        own = RunFolder(self.run).model
        if (own / "config.json").is_file():
            return own
        base = Path(section(self.config, self.role).model.path)
        if not (base / "config.json").is_file():
            raise ConfigError(
                f"{self.run}: it started from {base}, which is not there, seen from {Path.cwd()}; its config and "
                "tokenizer are needed: call this where the run was started, or put the folder back"
            )
        return base

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield its weights, whole, by their Hugging Face names: as the run saved them, or of a checkpoint in float32.

        Raises CheckpointError if a file of the checkpoint is not what was written, ConfigError if it is of an engine
        whose weights one process cannot read.
        """
        from hybridflow.engines.base import training_engines
        from hybridflow.models import table

        if self.checkpoint is None:
            yield from _in_folder(self.folder)
            return
        checkpoint, _ = self._verified
        weights = [one for one in table(read_shape(self.folder), head=self.head) if not one.is_tied_copy]
        engine = section(self.config, self.role).engine
        try:
            yield from training_engines.get(engine).read_saved(checkpoint / self.role, weights)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{checkpoint}: {error.args[0]}") from error
        except HybridFlowError as error:
            raise CheckpointError(str(error)) from error


def find(place: str) -> SavedModel:
    """Return the model at a place. Raises ConfigError, saying what is there, if there is none."""
    path = Path(place)
    if (path / MANIFEST).is_file():
        return _of_checkpoint(path.absolute().parents[1], path.absolute())
    run, colon, which = place.rpartition(":") if not path.exists() else (place, "", "")
    folder = Path(run).absolute()
    if not (folder / CONFIG).is_file() or not folder.is_dir():
        raise ConfigError(f"{place}: there is no run folder {run or place} (it would have a {CONFIG})")
    if colon:
        return _of_checkpoint(folder, _checkpoint(folder, which))
    if (folder / "model" / "config.json").is_file():
        return SavedModel(folder, read_config(folder / CONFIG))
    steps = Checkpoints(folder / "checkpoints").steps()
    hint = f"; its newest checkpoint is {run}:{steps[-1]}" if steps else " and has no checkpoint"
    raise ConfigError(f"{place}: the run has not ended, so it has no model yet{hint}")


def is_run(place: str) -> bool:
    """Tell whether a place is written like a run or a checkpoint, and not like a model folder."""
    path = Path(place)
    return not (path / "config.json").is_file() and (
        (path / CONFIG).is_file() or ":" in place or (path / MANIFEST).is_file()
    )


def read_config(file: Path) -> Config:
    """Read the settings that a run wrote, and import its plugins. Raises ConfigError naming what cannot be read."""
    tree = yaml_file.load(file)
    given: Any = OmegaConf.to_container(tree)
    plugins.load(plugins.checked(given.get("plugins") or [], str(file)))
    try:
        config = cast(Config, OmegaConf.to_object(OmegaConf.merge(schema(), tree)))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{file}: not the settings of a run of this version: {str(error).splitlines()[0]}") from error
    if config.algorithm.name not in algorithms:
        raise ConfigError(f"{file}: algorithm.name: {shown(config.algorithm.name)} is not known; name its plugins too")
    return config


def _of_checkpoint(run: Path, checkpoint: Path) -> SavedModel:
    return SavedModel(run, read_config(checkpoint / CONFIG), checkpoint)


def _checkpoint(folder: Path, which: str) -> Path:
    """Return the checkpoint that is meant. Raises ConfigError naming those that are there."""
    checkpoints = Checkpoints(folder / "checkpoints")
    steps = checkpoints.steps()
    known = f"its checkpoints are {', '.join(map(str, steps))}" if steps else "it has no checkpoints"
    if which == "latest" and steps:
        return checkpoints.at(steps[-1])
    if which == "best" and (checkpoints.path / BEST).is_file():
        name = (checkpoints.path / BEST).read_text(encoding="utf-8", errors="replace").strip()
        best = next((step for step in steps if checkpoints.at(step).name == name), None)
        if best is None:
            raise ConfigError(f"{checkpoints.path / BEST} names {shown(name)}, which is no checkpoint; {known}")
        return checkpoints.at(best)
    if which == "best":
        raise ConfigError(f"{folder}:best: the run kept none (trainer.keep_best); {known}")
    if which in map(str, steps):
        return checkpoints.at(int(which))
    raise ConfigError(f"{folder}:{which}: there is no such checkpoint; {known}")


def _in_folder(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    for name, file in tensor_files(folder).items():
        with safe_open(file, framework="pt") as reader:
            yield name, reader.get_tensor(name)
