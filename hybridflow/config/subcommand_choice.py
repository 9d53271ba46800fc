"""Algorithm that a subcommand brings itself, where the experiment chooses another one.

Hydra lets the subcommand's win. An experiment that is another subcommand's own (a cost model under `train-reward`) is
then a mistake, and an error. One of `train` may serve others too, as `sft experiment=addition`: that is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hybridflow.config.provenance import Layer, Origins

GROUP = "algorithm"
WITH_THEIR_OWN = ("sft", "train-reward", "train-cost")
"""Subcommands whose file chooses the algorithm."""


@dataclass(frozen=True)
class Choice:
    """Option of the group that a file chooses for others, and the line that does."""

    option: str
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{GROUP}={self.option} ({min(os.path.relpath(self.file), str(self.file), key=len)}:{self.line})"


def problem(origins: Origins, ours: Path) -> str | None:
    """Explain that the experiment is for another subcommand; None if it is not.

    Args:
        ours: the folder of our own options.
    """
    if (found := _overruled(origins)) is None:
        return None
    subcommand, experiment = found
    other = _subcommands(ours).get(experiment.option)
    if other is None:
        return None
    return (
        f"experiment: it chooses {experiment}, which hybridflow {other} trains by, and hybridflow "
        f"{subcommand.file.stem} trains by {GROUP}={subcommand.option}; use hybridflow {other}, or write "
        f"{GROUP}={subcommand.option} too, if this experiment's data are meant for it"
    )


def warning(origins: Origins) -> Iterator[str]:
    """Yield that the experiment's algorithm is not the one that is used."""
    if (found := _overruled(origins)) is not None:
        subcommand, experiment = found
        yield (
            f"experiment: it chooses {experiment}, but hybridflow {subcommand.file.stem} trains by "
            f"{GROUP}={subcommand.option}"
        )


def _overruled(origins: Origins) -> tuple[Choice, Choice] | None:
    """Return what the subcommand and the experiment choose, if they differ and the command line names neither."""
    if any(override.key_or_group == GROUP for override in origins.overrides):
        return None
    experiments = [layer for layer in origins.layers if layer.file.parent.name == "experiment"]
    files = [layer for layer in origins.layers if not layer.package and layer not in experiments]
    subcommand = _last([layer for layer in files if layer.file.stem in WITH_THEIR_OWN])
    experiment = _last(experiments) if subcommand is not None else None
    if subcommand is None or experiment is None or experiment.option == subcommand.option:
        return None
    return subcommand, experiment


def _last(layers: Sequence[Layer]) -> Choice | None:
    """Return the choice of the last of these files that makes one: it includes the others."""
    return next((choice for layer in reversed(layers) if (choice := _choice(layer.file)) is not None), None)


def _subcommands(ours: Path) -> Mapping[str, str]:
    """Return by algorithm the subcommand that chooses it itself."""
    choices = {name: _choice(ours / f"{name}.yaml") for name in WITH_THEIR_OWN}
    return {choice.option: name for name, choice in choices.items() if choice is not None}


def _choice(file: Path) -> Choice | None:
    """Return what a file's defaults list overrides the group with."""
    with file.open(encoding="utf-8") as text:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    for entry in (entry for name, value in pairs if name.value == "defaults" for entry in value.value):
        for key, option in entry.value if isinstance(entry, yaml.MappingNode) else ():
            words = str(key.value).split()
            if words[:1] == ["override"] and words[-1].lstrip("/") == GROUP and isinstance(option.value, str):
                return Choice(option.value, file, key.start_mark.line + 1)
    return None
