"""Checks of one run, all of them: of its settings, of its model folders, and of the machine that it is to start on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hybridflow.config import Config, compose, escapes, plugins, subcommand_choice, temporary_folder
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.provenance import Origins
from hybridflow.config.schema import Device
from hybridflow.engines.base import generation_engines
from hybridflow.errors import ConfigError
from hybridflow.models import ModelShape
from hybridflow.placement import model_device, resolve
from hybridflow.placement.hardware import local_cpus, local_gpus
from hybridflow.preflight import (
    combination_checks,
    environment_checks,
    run_folder_checks,
    secret_checks,
    setting_checks,
    unused_settings,
)
from hybridflow.preflight.model_folders import PendingModels, compared_tokenizers, read_models


def load(config_name: str = "train", overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Config:
    """Compose the settings of one run and check them as the command does, but for the folders of models and of the run.

    Plugins that they name are imported.

    Args:
        config_name: the primary configuration, `train`, `sft`, `train-reward` or `train-cost`.
        overrides: as on the command line, for example `["experiment=addition", "run.seed=2"]`.
        config_dir: a folder with more options of the groups.

    Raises:
        ConfigError: an unknown key or option, a wrong type, a mandatory value that is missing, or settings that no run
            can have; everything found, each with the place where it was set.
    """
    overrides = escapes.quoted(overrides)
    plugins.load(plugins.named(config_name, overrides, config_dir))
    composed = compose.compose(config_name, overrides, config_dir)
    config = composed.to_config()
    plugins.load(config.plugins)
    wrong = [*run_folder_checks.of_name(config.run.name), *setting_checks.problems(config)]
    if wrong := wrong or setting_checks.of_components(config, composed.origins):
        raise ConfigError("\n".join(composed.origins.annotate(problem) for problem in wrong))
    return config


def problems(
    config: Config, pending: PendingModels = MappingProxyType({}), origins: Origins | None = None
) -> list[str]:
    """List every problem of these settings; registries and folders are read, and GPUs of this machine counted.

    Args:
        pending: model folders that will be there.
        origins: where the settings were made, if that is known.
    """
    found = without_components(config, pending, _known_gpus(config), _known_cpus(config))
    return found or setting_checks.of_components(config, origins)


def without_components(
    config: Config,
    pending: PendingModels = MappingProxyType({}),
    gpus: int | None = None,
    cpus: int | None = None,
) -> list[str]:
    """List the problems of these settings that are found without torch: all but those of the algorithm's components.

    Args:
        pending: model folders that will be there.
        gpus, cpus: of the cluster; None: that is not known.
    """
    from hybridflow.algorithms import algorithms

    if secrets := secret_checks.problems(config):  # alone: what is said of other settings may show their values
        return secrets
    lines = run_folder_checks.problems(config)
    if config.ray.address == "local" and (problem := temporary_folder.problem()):
        lines.append(problem)
    models = dict[str, ModelShape]()
    tokenizers = dict[str, str]()
    if config.algorithm.name in algorithms:
        roles = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
        models, unread = read_models(config, roles, pending)
        tokenizers = compared_tokenizers(config, models, pending)
        lines += [*unread, *run_folder_checks.inputs_in_the_way(config, roles), *_heads(config, models, gpus)]
    return lines + setting_checks.problems(config, models, tokenizers, gpus, cpus)


def warnings(job: compose.Composed) -> list[str]:
    """List what will work, but not as the user may think; of a job without problems."""
    config = job.to_config()
    return warnings_of(config, job.origins, _known_gpus(config), _known_cpus(config))


def warnings_of(config: Config, origins: Origins, gpus: int | None, cpus: int | None) -> list[str]:
    """List what will work, but not as the user may think, on a cluster of so many GPUs and cores; None: not known."""
    from hybridflow.algorithms import algorithms

    flow = algorithms.get(config.algorithm.name)
    roles = flow.roles_of(config.algorithm)
    learning = [role for role in with_models(config, roles) if hasattr(section(config, role), "optimizer")]
    planned = {role: flow.planned_updates(config.algorithm, role, config.trainer.steps) for role in learning}
    placed = resolve(config, roles, gpus=gpus, cpus=cpus)
    idle = unused_settings.warnings(config, flow, origins, compose.configs_dir())
    overruled = subcommand_choice.warning(origins)
    combined = combination_checks.warnings(config, placed, local_cpus(), planned)
    return [*overruled, *combined, *environment_checks.warnings(config), *idle]


def _known_gpus(config: Config) -> int | None:
    """Count the GPUs of a cluster that this run starts; of one that it joins nothing is known before."""
    return local_gpus() if config.ray.address == "local" else None


def _known_cpus(config: Config) -> int | None:
    """Count the cores of a cluster that this run starts."""
    return local_cpus() if config.ray.address == "local" else None


def _heads(config: Config, models: Mapping[str, ModelShape], gpus: int | None) -> list[str]:
    """Tell if generation does not take the actor's model where it is to run."""
    known = "actor" in models and config.rollout.engine in generation_engines
    if not known or model_device(config, gpus) is not Device.cpu:
        return []
    try:
        generation_engines.get(config.rollout.engine).refuse(models["actor"], "cpu")
    except ValueError as error:
        return [f"actor.model.path: {config.actor.model.path} has {error}"]
    return []
