"""`hybridflow check`: try what modules of yours register, on random rows and for two steps of a tiny model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hybridflow import preflight
from hybridflow.bounded_code import kept_alive
from hybridflow.config import plugins
from hybridflow.errors import ConfigError
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line

if TYPE_CHECKING:
    from hybridflow.conformance.expectations import Results

TINY = {"layers": 2, "hidden": 64, "ffn": 128, "heads": 2, "kv_heads": 2, "positions": 256, "seed": 0}


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow check ARGV` and return the exit status: 1 if an expectation is violated.

    Raises ConfigError if a module cannot be imported or registers nothing, or an option cannot be read.
    """
    parser = argparse.ArgumentParser(prog="hybridflow check", description=__doc__)
    parser.add_argument(
        "modules",
        nargs="+",
        metavar="MODULE",
        help="what `plugins` names: my_pkg.rl; then settings (key=value) that a role of yours must be given",
    )
    parser.add_argument("-cd", type=Path, dest="folder", metavar="FOLDER", help="with options of yours (algorithm/)")
    options = parser.parse_args(argv)
    overrides = [word for word in options.modules if "=" in word]
    modules = [word for word in options.modules if word not in overrides]
    if not modules:
        parser.error("no MODULE is named, only settings")
    with kept_alive():
        return _check(modules, options.folder, overrides)


def _check(modules: Sequence[str], folder: Path | None, overrides: Sequence[str]) -> int:
    from hybridflow.conformance import component_checks
    from hybridflow.conformance.discovery import IN_RUNS_ALONE, names, registered

    registered_components = registered(lambda: plugins.load(modules))
    if not names(registered_components):
        raise ConfigError(
            f"{', '.join(modules)}: registers nothing new: no grader, task, loss, algorithm …; see docs/extend.md"
        )
    terminal.say(f"found: {', '.join(names(registered_components))}")
    wrong = shown(component_checks.results(registered_components))
    if not wrong:
        from hybridflow.cli.model import addition_model, write_model
        from hybridflow.conformance import flow_checks
        from hybridflow.conformance.scenarios import ScenarioBuilder

        with TemporaryDirectory() as place:
            model = Path(place) / "model"
            write_model(model, *addition_model(**TINY))
            builder = ScenarioBuilder(registered_components, model, modules, folder, overrides)
            wrong = shown(flow_checks.results(builder, preflight.problems, terminal.say))
    if untried := names({kind: registered_components[kind] for kind in IN_RUNS_ALONE}):
        terminal.say(f"not tried, as only a run does: {', '.join(untried)}")
    terminal.say(f"expectations that are not met: {wrong}" if wrong else "all expectations are met")
    return int(wrong > 0)


def shown(results: Results) -> int:
    """Print what was tried as it is done; return the number of violations."""
    wrong = 0
    for what, lines in results:
        for line in lines or [""]:
            report = f"  wrong  {one_line(what)}: {line}" if line else f"  ok     {one_line(what)}"
            terminal.say(report.replace("\n", "\n         "))
        wrong += len(lines)
    return wrong
