"""`hybridflow algorithms`: what there is to choose from, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from hybridflow.config import compose, plugins, recipes
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.errors import ConfigError
from hybridflow.losses.loss import losses
from hybridflow.observe import terminal
from hybridflow.observe.terminal import cell, one_line
from hybridflow.registry import is_users

if TYPE_CHECKING:
    from hybridflow.algorithms import Algorithm

HEAD = ("algorithm", "paper", "roles", "components")


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow algorithms ARGV` and return the exit status.

    Raises ConfigError if a module cannot be imported, or an option is none.
    """
    parser = argparse.ArgumentParser(prog="hybridflow algorithms", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="modules of yours that register more")
    parser.add_argument("-cd", type=Path, dest="folder", metavar="FOLDER", help="with options of yours (algorithm/)")
    options = parser.parse_args(argv)
    plugins.load(options.modules)
    show(rows(options.folder))
    return 0


def rows(folder: Path | None = None) -> list[tuple[str, str, str, str]]:
    """List each option of the group `algorithm`, and each algorithm without one: name, paper, roles, components."""
    from hybridflow.algorithms import algorithms
    from hybridflow.roles import TrainedRole, roles

    ours = {file.stem: file for file in sorted((compose.configs_dir() / "algorithm").glob("*.yaml"))}
    options: dict[str, Settings] = {}
    for option in (*ours, *(name for name in compose.options("algorithm", folder) if name not in ours)):
        tree = OmegaConf.merge(OmegaConf.structured(Settings), _written(option, ours, folder))
        if absent := sorted(OmegaConf.missing_keys(tree)):
            raise ConfigError(f"algorithm={option}: {', '.join(absent)} must be given")
        options[option] = cast(Settings, OmegaConf.to_object(tree))
        name = options[option].name
        if name not in algorithms and (former := [*recipes.former_names(name)]):
            raise ConfigError(f"algorithm={option}: {former[0].partition(': ')[2]}")
    named = {settings.name for settings in options.values()}
    options |= {name: Settings(name=name) for name in algorithms if name not in named}
    learns = {name for name in roles if issubclass(roles.get(name), TrainedRole)}
    table = []
    for option, settings in options.items():
        if settings.name not in algorithms:  # a folder may have options of several packages
            table.append((option, settings.paper, "", f"of the algorithm {settings.name}: name its module too"))
            continue
        cls = algorithms.get(settings.name)
        marked = (f"{role}*" if role in learns else role for role in cls.roles_of(settings))
        table.append((option, settings.paper or cls.paper, ", ".join(marked), ", ".join(components_of(settings, cls))))
    return table


def _written(option: str, ours: Mapping[str, Path], folder: Path | None) -> Any:
    """Read an option as a tree. Ours are read as they stand: composing takes long, and only those of others need it."""
    if option in ours:
        return OmegaConf.load(ours[option])
    return compose.compose("train", [f"algorithm={option}"], folder).tree.algorithm


def components_of(settings: Settings, cls: type[Algorithm]) -> list[str]:
    """Name the components that these settings put together."""
    loss = settings.policy_loss
    optional = (("reward_shaping", settings.reward_shaping), ("rollout_filter", settings.rollout_filter))
    names = [f"{key.partition('_')[2]} {component.name}" for key, component in optional if component.name != "none"]
    names += [f"shaping {name}" for name in settings.reward_shapings]
    if "advantage" in cls.components and settings.advantage.name != "none":
        names.append(f"advantage {settings.advantage.name}")
    if "policy_loss" in cls.components:
        names.append(f"loss {loss.name} by {loss.aggregate}")
    if settings.reward_kl_coef:
        names.append(f"{settings.reward_kl_control.name} KL {settings.reward_kl_estimator} in rewards")
    if loss.kl_coef:
        names.append(f"KL {loss.kl_estimator} in loss")
    if "pair_loss" in cls.components:
        names.append(f"loss {settings.pair_loss}")
    # Losses of the user, whose modules are imported; ours are named by the settings above.
    names += [f"loss {name}" for name, known in losses.registered.items() if name in cls.losses and is_users(known)]
    return names + [name.replace("_", " ") for name in ("lagrange", "preference_loss") if name in cls.components]


def show(table: Sequence[tuple[str, ...]]) -> None:
    """Print the table: on a terminal with lines, elsewhere as columns with tabs between them, a line a row."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        for row in (HEAD, *table):
            terminal.say("\t".join(map(one_line, row)))
        return
    lined = Table(*HEAD, caption="* learns", caption_justify="left")
    for row in table:
        lined.add_row(*map(cell, row))
    terminal.draw(console, lined)
