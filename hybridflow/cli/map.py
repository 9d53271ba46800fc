"""`hybridflow map`: the fastest placement of a run on some hardware, as a file that `hybridflow train` takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from hybridflow import preflight
from hybridflow.cli import out_file, plan
from hybridflow.cli.completion import HARDWARE
from hybridflow.cli.map_text import headline, lines_of, to_json
from hybridflow.cli.plan_bars import size_text
from hybridflow.config import Config, schedule_settings
from hybridflow.config.compose import Composed
from hybridflow.config.model_roles import names, section
from hybridflow.config.pool_sizes import COUNTS
from hybridflow.config.schema import Device
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.observe import terminal
from hybridflow.observe.disk_errors import writing
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.run_plan import RunPlan
from hybridflow.planning.search.device_mapping import SYNC_SCHEDULE, DeviceMapping, map_devices
from hybridflow.planning.search.placement_settings import written
from hybridflow.planning.spec_of_config import spec_of
from hybridflow.planning.traced_roles import FlowError
from hybridflow.scheduling import SCHEDULES
from hybridflow.tasks.reading_progress import ReadingProgress

BOUND_S = 120.0
USAGE = (
    "hybridflow map [train | sft | train-reward | train-cost] [hardware=NAME|FILE] [KEY=VALUE ...] [--devices N] "
    "[--schedules NAME,...] [--out FILE [--force]] [--bound] [--json] [-cd FOLDER]"
)
EXAMPLES = """\
  hybridflow map experiment=addition                                  on the slots of its placement, on this machine
  hybridflow map experiment=mine hardware=h100_80g_8x --devices 64 --out found.yaml
  hybridflow train experiment=mine placement=found.yaml               takes it
  hybridflow map experiment=mine --schedules sync                     no rows that are older than a step's weights
"""


@dataclass(frozen=True)
class Asked:
    """Command line, understood.

    Attributes:
        run: what is to be placed, and on which hardware.
        devices: how many; 0: the slots of the settings' placement.
        schedules: that may be taken; empty: all that the algorithm allows.
        out: the file to write.
        bound: ask for a bound on what any placement can come to.
    """

    run: plan.Asked
    devices: int
    schedules: tuple[str, ...]
    out: Path | None
    bound: bool


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow map ARGV` and return the exit status.

    Raises ConfigError if the settings cannot be run, HybridFlowError if nothing fits.
    """
    asked = _asked(argv)
    begun = monotonic()
    given = read_hardware(asked.run.hardware) if asked.run.hardware is not None else None
    job, now = _sound(asked, given)
    config = plan.on_hardware(given, job.to_config())
    devices = asked.devices or now.placement.slots
    hardware = given or _this_machine(config, devices)
    try:
        spec = spec_of(config)
    except FlowError as error:
        raise HybridFlowError(f"the flow is not known, so nothing can be placed by it: {error}") from error
    schedules, refused = _schedules(config, asked.schedules)
    found = map_devices(
        spec, hardware, devices, schedules=schedules, bound_s=BOUND_S if asked.bound else 0.0, progress=_Progress()
    )
    found, text = _accepted(found, asked, given)
    if asked.out is not None:
        with writing(asked.out):
            asked.out.write_text(text, encoding="utf-8")
    if asked.run.json:
        terminal.say(json.dumps(to_json(found, now, refused), indent=2))
        return 0
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines_of(found, now, refused, monotonic() - begun):
        terminal.draw(console, line)
    takes = f"hybridflow {asked.run.subcommand} … placement={asked.out or 'FILE'} takes"
    terminal.say(f"{asked.out}: written; {takes} it" if asked.out else f"--out FILE writes it as a file that {takes}")
    return 0


def _sound(asked: Asked, given: Hardware | None) -> tuple[Composed, RunPlan]:
    """Compose the settings, and plan them where they are placed now; with `--devices` that placement need not be one.

    Raises ConfigError for what cannot be run, wherever it is placed.
    """
    job = plan.composed(asked.run)
    try:
        return job, plan.plan_of(job, given)
    except ConfigError:
        if not asked.devices:
            raise
    own = [role for role in names(job.to_config()) if hasattr(section(job.to_config(), role), "parallel")]
    sizes = [f"{role}.parallel.{axis}=1" for role in (*own, "rollout") for axis in ("tensor", "pipeline")]
    plain = (*_without_placement(asked), "placement=colocated", f"placement.pools.main={asked.devices}", *sizes)
    job = plan.composed(replace(asked.run, settings=plain))
    return job, replace(plan.plan_of(job, given), step=None)


def _without_placement(asked: Asked) -> tuple[str, ...]:
    return tuple(one for one in asked.run.settings if not one.startswith(("placement=", "placement.pools.")))


class _Progress:
    """Says every few seconds how far the search is."""

    def __init__(self) -> None:
        self._known: dict[str, ReadingProgress] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._known:
            self._known[what] = ReadingProgress(what, of)
        self._known[what].at(done)


def _this_machine(config: Config, devices: int) -> Hardware:
    """Return usual CPUs, which the devices share. Raises ConfigError where the run is on GPUs, which are not known."""
    if config.placement.device is Device.gpu:
        names = "a100_80g_8x, h100_80g_8x, …, or a file that `hybridflow profile` has written"
        raise ConfigError(f"hardware: must be given for GPUs, as {HARDWARE}NAME: {names}")
    return replace(plan.this_machine(devices), devices_per_node=devices)


def _schedules(config: Config, wanted: Sequence[str]) -> tuple[dict[str, Mapping[str, object]], dict[str, str]]:
    """Return the schedules that the run may have, with what its settings change of them, and why not the others.

    Raises ConfigError if none of those wanted may be.
    """
    allowed: dict[str, Mapping[str, object]] = {}
    refused: dict[str, str] = {}
    before = {*_problems(config, SYNC_SCHEDULE)}
    for name in wanted or SCHEDULES:
        changes = schedule_settings.changes(config.trainer) if name == config.trainer.schedule else {}
        if schedule_settings.learns_in_parts(name):
            changes["minibatches"] = config.algorithm.minibatches
        new = [problem for problem in _problems(config, name) if problem not in before]
        if new:
            refused[name] = new[0]
        else:
            allowed[name] = changes
    if not allowed:
        raise ConfigError("\n".join(refused.values()))
    return allowed, refused


def _problems(config: Config, schedule: str) -> list[str]:
    """List what is wrong with a schedule, where generation has a pool of its own."""
    tried = deepcopy(config)
    apart = schedule != SYNC_SCHEDULE
    tried.placement.pools = {"main": 2**16, **({"rollout": 2**16} if apart else {})}
    tried.placement.roles = {"rollout": "rollout" if apart else "main"}
    tried.placement.device = Device.cpu
    if schedule != config.trainer.schedule:
        tried.trainer = replace(
            tried.trainer, schedule=schedule, max_staleness=None, partial=None, sampler="", spare_prompts=0
        )
    return preflight.without_components(tried, plan.without_weights(tried))


def _accepted(found: DeviceMapping, asked: Asked, given: Hardware | None) -> tuple[DeviceMapping, str]:
    """Return what was found from the fastest on that a run would take, and that one as a file.

    Raises ConfigError with what is wrong with the fastest, if a run would take none.
    """
    schedule = plan.composed(asked.run).to_config().trainer.schedule
    kept = _without_placement(asked) if asked.devices else asked.run.settings
    kept = tuple(setting for setting in kept if not setting.startswith("placement="))
    refused: list[ConfigError] = []
    for place in range(len(found.runs)):
        rest = replace(found, runs=found.runs[place:])
        text = written(rest.best, schedule, headline(rest))
        with TemporaryDirectory() as folder:
            file = Path(folder) / "placement.yaml"
            file.write_text(text, encoding="utf-8")
            try:
                made = plan.plan_of(plan.composed(replace(asked.run, settings=(*kept, f"placement={file}"))), given)
                _refuse_full(made)
            except ConfigError as error:  # what only the engines refuse, as sizes that pad a vocabulary differently
                refused.append(error)
            else:
                return rest, text
    raise refused[0]


def _refuse_full(made: RunPlan) -> None:
    """Raise ConfigError for slots that have less memory than they need."""
    for slot in made.memory:
        if 0 < slot.device < slot.peak:
            raise ConfigError(
                f"placement.pools.{slot.pool}: {size_text(slot.peak)} are needed of {size_text(slot.device)} of a slot"
            )


def _asked(argv: Sequence[str]) -> Asked:
    parser = argparse.ArgumentParser(
        prog="hybridflow map",
        usage=USAGE,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="settings, as of hybridflow train")
    parser.add_argument("--devices", type=int, default=0, metavar="N", help="in all; else those of its placement")
    parser.add_argument("--schedules", default="", metavar="NAME,...", help="that may be taken, as sync; else all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the placement into this file")
    parser.add_argument("--force", action="store_true", help="replace the file that is there")
    parser.add_argument("--bound", action="store_true", help="say how far from the optimum it is at most, in 2 minutes")
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")
    parser.add_argument("-cd", type=Path, dest="folder", metavar="FOLDER", help="with options of yours")
    options = parser.parse_intermixed_args(argv)
    assert COUNTS is not None
    if options.devices and (problem := COUNTS.problem(options.devices)):
        raise ConfigError(f"--devices: {problem}")
    if options.out is not None:
        out_file.check("--out", options.out, "a placement", out_file.YAML, force=options.force)
    schedules = tuple(name for name in options.schedules.split(",") if name)
    for name in schedules:
        if name not in SCHEDULES:
            raise ConfigError(f"--schedules {name}: there is no such schedule; there is {', '.join(SCHEDULES)}")
    return Asked(plan.asked_run(options), options.devices, schedules, options.out, options.bound)
