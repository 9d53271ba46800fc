"""`hybridflow plan`: what a run will look like on its slots, and what it takes, before anything starts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridflow import preflight
from hybridflow.cli import out_file
from hybridflow.cli.completion import HARDWARE, HYDRAS
from hybridflow.cli.plan_text import lines_of
from hybridflow.config import Config, compose, escapes, plugins, pool_sizes
from hybridflow.config.compose import Composed
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Device
from hybridflow.errors import ConfigError
from hybridflow.models import ModelShape, read_shape
from hybridflow.observe import terminal
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.host_memory import host_memory
from hybridflow.placement import resolve
from hybridflow.placement.hardware import local_cpus, local_gpus
from hybridflow.planning import plan_remarks
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.plan_remarks import Remark
from hybridflow.planning.run_plan import RunPlan, estimated, nodes_of
from hybridflow.planning.spec_of_config import spec_of
from hybridflow.planning.traced_roles import FlowError

USAGE = (
    "hybridflow plan [train | sft | train-reward | train-cost] [hardware=NAME|FILE] [KEY=VALUE ...] "
    "[--svg FILE [--force]] [--json] [-cd FOLDER]"
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
        hardware: a name or a file; None: this machine.
        settings: `key=value`, as of that subcommand.
        svg: a file to draw into.
    """

    subcommand: str
    hardware: str | None
    settings: tuple[str, ...]
    folder: Path | None
    svg: Path | None
    json: bool


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow plan ARGV` and return the exit status.

    Raises ConfigError if the settings cannot be run, as the subcommand that would run them does.
    """
    asked = _asked(argv)
    hardware = read_hardware(asked.hardware) if asked.hardware is not None else None
    plan = plan_of(composed(asked), hardware)
    if asked.svg is not None:
        _draw(plan, asked.svg)
    if asked.json:
        terminal.say(json.dumps(plan.to_json(), indent=2))
        return 0
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines_of(plan, console.width if console.is_terminal else terminal.WIDEST):
        terminal.draw(console, line)
    return 0


def _draw(plan: RunPlan, file: Path) -> None:
    from hybridflow.cli.plan_svg import drawing

    with writing(file):
        file.write_text(drawing(plan), encoding="utf-8")


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

    Args:
        hardware: that it is for; None: this machine, of whose GPUs nothing is known but their number.
    """
    from hybridflow.algorithms import algorithms

    config = on_hardware(hardware, job.to_config())
    gpus, cpus = _devices(config, hardware)
    if problems := preflight.without_components(config, without_weights(config), gpus, cpus):
        raise ConfigError("\n".join(job.origins.annotate(problem) for problem in problems))
    flow = algorithms.get(config.algorithm.name)
    called = flow.roles_of(config.algorithm)
    placement = resolve(config, called, gpus=gpus, cpus=cpus)
    if hardware is None and all(pool.device is Device.cpu for pool in placement.pools):
        hardware = this_machine(placement.slots)
    plan = RunPlan(config.run.name, placement, nodes_of(placement, hardware), hardware)
    told = (line.partition(": ") for line in preflight.warnings_of(config, job.origins, gpus, cpus))
    plan = replace(
        plan,
        warnings=tuple(Remark(key, text) for key, _, text in told),
        left_out=tuple(plan_remarks.of_passes(flow.roles, called, config.algorithm.critic_warmup_steps)),
    )
    try:
        spec = spec_of(config)
    except FlowError as error:
        return replace(plan, warnings=(*plan.warnings, Remark("algorithm.name", str(error))))
    return estimated(plan, spec)


def on_hardware(hardware: Hardware | None, config: Config) -> Config:
    """Return the settings of a run on a cluster of that hardware, whatever this machine has."""
    if hardware is None:
        return config
    config.ray.address = "auto"
    if config.placement.device is Device.auto:
        config.placement.device = hardware.device
    return config


def this_machine(slots: int) -> Hardware:
    """Return usual CPUs, as many and with as much memory as are here."""
    usual = read_hardware("cpu")
    memory = host_memory()
    share = memory.left / slots if memory else 0.0
    return replace(usual, name="cpu (this machine)", cores=local_cpus(), memory_bytes=share)


def _devices(config: Config, hardware: Hardware | None) -> tuple[int | None, int | None]:
    """Count the GPUs and the CPUs that there will be: with a hardware as many of its devices as slots are asked for."""
    if hardware is None:
        return (local_gpus(), local_cpus()) if config.ray.address == "local" else (None, None)
    devices = _asked_for(config.placement.pools, hardware)
    return (devices, None) if hardware.device is Device.gpu else (0, devices)


def _asked_for(pools: Mapping[str, Any], hardware: Hardware) -> int:
    """Count the slots of all pools; a pool that has what others leave has it of the last node."""
    if any(pool_sizes.problems(pools)):  # which preflight tells
        return 0
    sizes = [pool_sizes.size_of(size).slots for size in pools.values()]
    given = sum(size for size in sizes if size is not None)
    per_node = hardware.devices_per_node
    return (given // per_node + 1) * per_node if None in sizes else given


def without_weights(config: Config) -> Mapping[Path, ModelShape]:
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
    parser.add_argument("--force", action="store_true", help="replace the drawing that is there")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("-cd", type=Path, dest="folder", metavar="FOLDER", help="with options of yours")
    options = parser.parse_intermixed_args(argv)
    if options.svg is not None:
        out_file.check("--svg", options.svg, "a drawing", out_file.SVG, force=options.force)
    return replace(asked_run(options), svg=options.svg)


def asked_run(options: argparse.Namespace) -> Asked:
    """Return what a command line asks about: its words name a subcommand, a hardware and settings."""
    words = list(options.words)
    subcommand = words.pop(0) if words and words[0] in HYDRAS else "train"
    hardware = [word.removeprefix(HARDWARE) for word in words if word.startswith(HARDWARE)]
    settings = tuple(word for word in words if not word.startswith(HARDWARE))
    return Asked(subcommand, hardware[-1] if hardware else None, settings, options.folder, None, options.json)
