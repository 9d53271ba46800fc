"""The stages of `hybridflow rlhf`: read from a YAML file, with what the command line changes of them. Starts nothing.

settings: [run.root=runs/mine]      # of every stage
stages:
  sft:                              # a name; unless `command` says otherwise, that of a subcommand
    settings: [experiment=my_sft]
  judge:
    command: train-reward
    settings: [experiment=my_pairs]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridflow.cli.completion import HYDRAS
from hybridflow.config import compose, yaml_file
from hybridflow.config.provenance import line_of
from hybridflow.config.schema import SECTIONS
from hybridflow.errors import ConfigError


@dataclass
class Entry:
    """Stage in the file."""

    command: str = ""  # a subcommand that trains; empty: the one that the stage is named after
    settings: list[str] = field(default_factory=list)  # as on its command line


@dataclass
class StagesFile:
    """Schema of the whole file."""

    settings: list[str] = field(default_factory=list)  # of every stage
    stages: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Subcommand and its arguments."""

    name: str
    command: str
    overrides: tuple[str, ...]
    shared: frozenset[str] = field(default=frozenset(), compare=False)  # those of them that are for every stage


def read(name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> list[Stage]:
    """Read the stages of a file by its name, in order; what is more particular wins.

    Args:
        overrides: `key=value` for every stage, `STAGE.key=value` for one.
        config_dir: looked into after our own folder.

    Raises:
        ConfigError: there is no such file, something in it is wrong, or an override names a stage that is not there.
    """
    file = _find(name, config_dir)
    entries = _entries(file)
    shared, own = split(overrides, entries["stages"])
    every = frozenset((*entries["settings"], *shared))
    return [
        Stage(stage, entry["command"] or stage, (*entries["settings"], *entry["settings"], *shared, *own[stage]), every)
        for stage, entry in entries["stages"].items()
    ]


def split(overrides: Iterable[str], stages: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split overrides into those for every stage, and by stage those for it alone, without its name.

    Raises ConfigError for what looks like a misspelled stage.
    """
    shared: list[str] = []
    own: dict[str, list[str]] = {stage: [] for stage in stages}
    for override in overrides:
        body = override.lstrip("+~")
        first, dot, rest = body.partition(".") if "." in body.partition("=")[0] else (body, "", "")
        if dot and first in own:
            own[first].append(override[: len(override) - len(body)] + rest)
            continue
        near = get_close_matches(first, own, n=1, cutoff=0.8)
        if dot and near and first not in SECTIONS:
            raise ConfigError(f"{override}: no stage is named {first!r}; did you mean {near[0]}? {_all(own)}")
        shared.append(override)
    return shared, own


def _find(name: str, config_dir: Path | None) -> Path:
    folders = compose.search_dirs([], config_dir)
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise ConfigError(f"-cn {name}: there is no {name}.yaml in {' or '.join(map(str, folders))}")


def _entries(file: Path) -> Mapping[str, Any]:
    """Read the file as plain dictionaries, with every key. Its `${...}` are left to the stages."""
    try:
        tree = OmegaConf.merge(OmegaConf.structured(StagesFile), yaml_file.load(file))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: not a file of stages: {str(error).splitlines()[0]}; see docs/rlhf.md") from error
    contents: Any = OmegaConf.to_container(tree, resolve=False)
    if not contents["stages"]:
        raise ConfigError(f"{file}: it has no stages; see docs/rlhf.md")
    for stage, entry in contents["stages"].items():
        place = f"{file}:{line_of(file, ['stages', stage])}"
        if stage in SECTIONS:
            raise ConfigError(f"{place}: stage {stage}: a section of the settings has this name; choose another")
        if (entry["command"] or stage) not in HYDRAS:
            raise ConfigError(
                f"{place}: stage {stage}: {entry['command'] or stage!r} is no subcommand that trains; give `command:`, "
                f"one of {', '.join(HYDRAS)}"
            )
    return contents


def _all(stages: Iterable[str]) -> str:
    return f"The stages are {', '.join(stages)}"
