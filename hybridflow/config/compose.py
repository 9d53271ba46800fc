"""Composition of a primary configuration and overrides to a checked `Config`: Hydra composes, the schema types.

Everything here runs before Hydra's own application does, so that what it would report with a banner is one clear line.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from os.path import expanduser
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridflow.config import (
    auto_settings,
    error_messages,
    escapes,
    free_keys,
    number_bounds,
    secret_settings,
    sections,
    subcommand_choice,
)
from hybridflow.config.interpolations import refuse_endless
from hybridflow.config.option_loader import SEARCH_PATH, OptionLoader
from hybridflow.config.provenance import Origins, line_of
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError

VERSION_BASE = "1.3"
JOB = "launch"  # what Hydra calls its application by: the module that starts it

CONFIG_STORE = {"name": "config_schema", "provider": "hybridflow"}
_stored: DictConfig | None = None  # the schema that is in it; making one takes longer than most imports
OmegaConf.register_new_resolver("hybridflow.path", expanduser, replace=True)


@dataclass(frozen=True)
class Composed:
    """Composition that has no unknown key and no wrong type; mandatory values may be missing."""

    tree: DictConfig
    origins: Origins
    experiments: Sequence[str]  # to choose from, if none is chosen
    folders: Sequence[Path] = ()  # with options

    @property
    def absent(self) -> list[str]:
        """Mandatory keys that are missing."""
        return sorted(_missing(OmegaConf.to_container(self.tree, resolve=False)))

    def to_config(self) -> Config:
        """Return the dataclass object, a copy of its own for each caller.

        Raises ConfigError naming every mandatory key that is missing.
        """
        return deepcopy(self._config)

    @cached_property
    def _config(self) -> Config:
        if self.absent:
            options = {key: sorted({*_options_with(key, self.folders)}) for key in self.absent}
            raise ConfigError("\n".join(error_messages.missing(options, self.experiments)))
        try:
            config = cast(Config, OmegaConf.to_object(self.tree))
        except (OmegaConfBaseException, RecursionError) as error:
            raise ConfigError(error_messages.composition(error, self.origins)) from error
        except Exception as error:  # settings of a user's role may check themselves, and raise anything
            key = next(_refusing(self.tree), "")
            raise ConfigError(self.origins.annotate(f"{key}: {error_messages.one_line(error)}")) from error
        if problems := list(number_bounds.nested(config)):
            raise ConfigError("\n".join(map(self.origins.annotate, problems)))
        return config


def _refusing(tree: DictConfig) -> Iterator[str]:
    """Yield the sections whose classes cannot be made of what they are given."""
    for key in map(str, tree):
        try:
            OmegaConf.to_object(tree[key])
        except Exception:
            yield key


def _options_with(key: str, folders: Sequence[Path]) -> Iterator[str]:
    """Yield the options of a key's group that set it."""
    group, _, inside = key.partition(".")
    for file in (file for folder in folders for file in (folder / group).glob("*.yaml")):
        if line_of(file, inside.split(".")):
            yield file.stem


def resolved_yaml(config: Config) -> str:
    """Write the settings as YAML that can be read back: every default, and `auto` as what it comes to."""
    resolved = auto_settings.resolved(config)
    return _written(_ByValue((type(config), repr(asdict(resolved))), resolved))


@dataclass(frozen=True)
class _ByValue:
    """Settings that are equal to others with the same values."""

    value: Hashable
    config: Config = field(compare=False)


@lru_cache(maxsize=16)  # each stage of `hybridflow rlhf` is written several times, to be compared
def _written(settings: _ByValue) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(settings.config), resolve=True)


def compose(config_name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Composed:
    """Compose the settings of one run; values that must be given may still be missing.

    Args:
        config_name: the primary configuration, `train`, `sft`, `train-reward` or `train-cost`.
        overrides: as on the command line, for example `["experiment=addition", "run.seed=2"]`.
        config_dir: a folder with more options of the groups.

    Raises ConfigError for an unknown key or option and for a wrong type, with the place where it was set.
    """
    parsed = parse(overrides)
    with _session(parsed, free_keys.added(escapes.meant(overrides)), config_dir) as (loader, lines):
        groups = [group for group in loader.list_groups("") if group != "hydra"]
        bad = error_messages.bad_overrides(parsed, groups) + error_messages.sweeps(parsed, groups)
        bad += error_messages.mixed(parsed, configs_dir())
        if bad:
            raise ConfigError("\n".join(bad))
        try:
            tree = hydra.compose(config_name, overrides=lines)
        except Exception as error:  # Hydra lets out what its parts raise: ValueError, RecursionError, AssertionError …
            raise ConfigError(error_messages.composition(error, loader.origins(parsed))) from error
        origins = loader.origins(parsed)
        if contradiction := subcommand_choice.problem(origins, configs_dir()):
            raise ConfigError(contradiction)
        _name_grader(tree)
        plain: Any = OmegaConf.to_container(tree, resolve=False)
        refuse_endless(plain)
        chosen = any(layer.file.parent.name == "experiment" for layer in origins.layers)
        searched = [line for line in lines if line.startswith(SEARCH_PATH)]
        experiments = [] if chosen else loader.get_group_options("experiment", overrides=searched)
        return Composed(tree, origins, experiments, search_dirs(parsed, config_dir))


def _name_grader(tree: DictConfig) -> None:
    """Name the first of `reward.graders` as the grader, where several are given and that is not.

    The reward model, which is among them as `reward_model`, is none, if there is another.
    """
    reward = tree.get("reward")
    if reward is not None and reward.get("graders") and OmegaConf.is_missing(reward, "grader"):
        names = list(map(str, reward.graders))
        reward.grader = next((name for name in names if name != "reward_model"), names[0])


def options(group: str, config_dir: str | Path | None = None) -> list[str]:
    """List the options of a group: ours, a folder's, and those that plugins have put into Hydra's store."""
    with _session([], [], config_dir) as (loader, lines):
        return loader.get_group_options(group, overrides=lines)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse the overrides as Hydra does. Raises ConfigError naming one that cannot be read."""
    return [_parsed(override, None) for override in overrides]


def sweep_jobs(overrides: Sequence[str], config_dir: str | Path | None = None) -> list[list[str]]:
    """List the overrides of each job of a sweep: the product of their values, in the order of Hydra's basic sweeper.

    Raises ConfigError if one cannot be read, or there is nothing in the sweep.
    """
    folders = [configs_dir(), *search_dirs(parse(overrides), config_dir)[1:]]
    path = create_config_search_path(None)
    for folder in folders:
        path.append("hybridflow", f"file://{folder}")
    loader = ConfigLoaderImpl(config_search_path=path)  # `glob(...)` asks it for the options of a group
    parsed = [_parsed(override, loader) for override in overrides]
    try:
        jobs: list[list[str]] = BasicSweeper.split_arguments(parsed, None)[0]
    except Exception as error:
        raise ConfigError(f"-m: {error_messages.composition(error, Origins())}") from error
    if not jobs:
        empty = [str(override.input_line) for override in parsed if override.is_sweep_override()]
        raise ConfigError(f"{' '.join(empty)}: there is nothing in the sweep, so nothing was run")
    return jobs


def _parsed(override: str, loader: ConfigLoader | None) -> Override:
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([override])[0]
    except HydraException as error:
        raise ConfigError(error_messages.composition(error, Origins())) from error
    except Exception as error:  # a number of too many digits, too many brackets
        shown = secret_settings.without_secret(override)
        shown = shown if len(shown) < 80 else f"{shown[:60]}…"
        raise ConfigError(f"{shown}: not understood: {error_messages.composition(error, Origins())}") from error


def store_schema() -> None:
    """Let Hydra compose over the settings as they are by now: plugins may have added sections."""
    global _stored
    schema = sections.schema()
    if schema is not _stored:
        ConfigStore.instance().store(node=schema, **CONFIG_STORE)
        _stored = schema


def configs_dir() -> Path:
    """Return the folder of our own configuration groups: in the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "trainer_configs"
    return inside if inside.is_dir() else package.parent / "trainer_configs"


def search_dirs(overrides: Sequence[Override], config_dir: str | Path | None = None) -> list[Path]:
    """List the folders with options; the first match wins. Raises ConfigError if `config_dir` is none."""
    added = [str(config_dir)] if config_dir is not None else []
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"-cd {config_dir}: there is no such folder")
    for override in overrides:
        if override.key_or_group == SEARCH_PATH:
            added += _folders(override)
    return [configs_dir(), *(Path(folder).absolute() for folder in added if "://" not in folder)]


def _folders(override: Override) -> list[str]:
    """Return the folders that an override of the search path names. Raises ConfigError for anything else."""
    value = override.value()
    if not isinstance(value, list) or not all(isinstance(folder, str) for folder in value):
        raise ConfigError(f"{override.input_line}: a list of folders was expected, as {SEARCH_PATH}=[mine]")
    folders = [folder.removeprefix("file://") for folder in value]
    for folder in folders:
        if "://" not in folder and not Path(folder).is_dir():
            raise ConfigError(f"{override.input_line}: there is no folder {folder}")
    return folders


@contextmanager
def _session(
    parsed: list[Override], overrides: Sequence[str], config_dir: str | Path | None
) -> Iterator[tuple[OptionLoader, list[str]]]:
    """Hydra ready to compose: its loader, and the overrides with `config_dir` as a search path."""
    folders = search_dirs(parsed, config_dir)
    lines = [line for line, override in zip(overrides, parsed, strict=True) if override.key_or_group != SEARCH_PATH]
    if folders[1:]:
        quoted = ",".join("'" + str(folder).replace("'", "\\'") + "'" for folder in folders[1:])
        lines.append(f"{SEARCH_PATH}=[{quoted}]")
    store_schema()
    with hydra.initialize_config_dir(str(configs_dir()), version_base=VERSION_BASE, job_name=JOB):
        hydras = GlobalHydra.instance()
        assert hydras.hydra is not None
        loader = hydras.hydra.config_loader = OptionLoader(hydras.config_loader().get_search_path(), folders)
        yield loader, lines


def _missing(tree: Any, above: str = "") -> Iterator[str]:
    """List keys that hold `???`. (`OmegaConf.missing_keys` raises where an interpolation leads to one of them.)"""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _missing(value, f"{above}{name}.")
        elif value == MISSING:
            yield f"{above}{name}"
