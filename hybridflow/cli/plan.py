"""`hybridflow plan`: what a run will look like on its slots, and what it takes, before anything starts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridflow import preflight
from hybridflow.cli.completion import HYDRAS
from hybridflow.cli.plan_text import lines_of
from hybridflow.config import Config, compose, escapes, plugins
from hybridflow.config.compose import Composed
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Device
from hybridflow.errors import ConfigError
from hybridflow.models import ModelShape, read_shape
from hybridflow.observe import terminal
from hybridflow.observe.disk_errors import writing
from hybridflow.placement import resolve
from hybridflow.placement.hardware import local_gpus
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_plan import RunPlan, nodes_of

HARDWARE = "hardware="
USAGE = (
    "hybridflow plan [train | sft | train-reward | train-cost] [hardware=NAME|FILE] [KEY=VALUE ...] [--svg FILE] "
    "[--json] [-cd FOLDER]"
)
EXAMPLES = """\
  hybridflow plan experiment=addition                           on this machine
  hybridflow plan experiment=addition hardware=h100_80g_8x      on nodes of 8 H100
  hybridflow plan sft experiment=addition_warmup                a run of another subcommand than train
  hybridflow plan experiment=addition placement=split --svg plan.svg
"""


@dataclass(frozen=True)
class Asked:
    """Command line, understood.

    Attributes:
        subcommand: the one that would run it.
        hardware: a name or a file; "": this machine.
        settings: `key=value`, as of that subcommand.
        svg: a file to draw into.
    """

    subcommand: str
    hardware: str
    settings: tuple[str, ...]
    folder: Path | None
    svg: Path | None
    json: bool


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow plan ARGV` and return the exit status.

    Raises ConfigError if the settings cannot be run, as the subcommand that would run them does.
    """
    asked = _asked(argv)
    plan = plan_of(composed(asked), None)
    if asked.svg is not None:
        from hybridflow.cli.plan_svg import drawing

        with writing(asked.svg):
            asked.svg.write_text(drawing(plan), encoding="utf-8")
    if asked.json:
        terminal.say(json.dumps(plan.to_json(), indent=2))
        return 0
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines_of(plan):
        terminal.draw(console, line)
    return 0


def composed(asked: Asked) -> Composed:
    """Compose the settings, plugins imported before."""
    overrides = escapes.quoted(asked.settings)
    plugins.load(plugins.named(asked.subcommand, overrides, asked.folder))
    job = compose.compose(asked.subcommand, overrides, asked.folder)
    plugins.load(job.to_config().plugins)
    return job


def plan_of(job: Composed, hardware: Hardware | None) -> RunPlan:
    """Plan a run. Raises ConfigError with everything that keeps it from being run, but for components' options.

    Those are written with torch, which takes longer to import than a plan to make.
    """
    from hybridflow.algorithms import algorithms

    config = job.to_config()
    gpus = _gpus(config, hardware)
    if problems := preflight.without_components(config, _without_weights(config), gpus):
        raise ConfigError("\n".join(job.origins.annotate(problem) for problem in problems))
    placement = resolve(config, algorithms.get(config.algorithm.name).roles_of(config.algorithm), gpus=gpus)
    return RunPlan(config.run.name, placement, nodes_of(placement, hardware), hardware)


def _gpus(config: Config, hardware: Hardware | None) -> int | None:
    """Count the GPUs that there will be: as many as slots, where the hardware is GPUs, whatever this machine has."""
    if hardware is not None:
        return sum(config.placement.pools.values()) if hardware.device is Device.gpu else 0
    return local_gpus() if config.ray.address == "local" else None


def _without_weights(config: Config) -> Mapping[Path, ModelShape]:
    """Return the model folders that have a config.json alone, which is all that a plan needs of them."""
    from hybridflow.algorithms import algorithms

    if config.algorithm.name not in algorithms:
        return {}
    shapes: dict[Path, ModelShape] = {}
    for role in with_models(config, algorithms.get(config.algorithm.name).roles_of(config.algorithm)):
        folder = Path(section(config, role).model.path)
        if (folder / "config.json").is_file() and not [*folder.glob("*.safetensors*")]:
            try:
                shapes[folder.resolve()] = read_shape(folder)
            except (OSError, ValueError):  # which preflight tells
                continue
    return shapes


def _asked(argv: Sequence[str]) -> Asked:
    parser = argparse.ArgumentParser(
        prog="hybridflow plan",
        usage=USAGE,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="settings, as of hybridflow train")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it into this file too")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("-cd", type=Path, dest="folder", metavar="FOLDER", help="with options of yours")
    options = parser.parse_intermixed_args(argv)
    words = list(options.words)
    subcommand = words.pop(0) if words and words[0] in HYDRAS else "train"
    hardware = [word.removeprefix(HARDWARE) for word in words if word.startswith(HARDWARE)]
    settings = tuple(word for word in words if not word.startswith(HARDWARE))
    return Asked(subcommand, hardware[-1] if hardware else "", settings, options.folder, options.svg, options.json)
