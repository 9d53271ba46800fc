"""Two steps of every play on ranks, with real engines, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.columns import values_of
from hybridflow.config.schema import Config
from hybridflow.conformance.expectations import Tried, described
from hybridflow.conformance.scenarios import Scenario, ScenarioBuilder
from hybridflow.conformance.shared_roles import PLUGIN, SharedRoles, staged
from hybridflow.errors import HybridFlowError
from hybridflow.registry import import_plugins
from hybridflow.roles import TrainedRole, roles
from hybridflow.runtime.failure import RoleError

STEPS = 2


def results(script: ScenarioBuilder, problems: Callable[[Config], list[str]], say: Callable[[str], None]) -> Tried:
    """Yield for each scenario the promises that it does not keep.

    Args:
        problems: what is wrong with settings before anything starts; a scenario that has any is not started.
        say: is told what is being started.
    """
    import_plugins([PLUGIN])
    sound: list[Scenario] = []
    for play in script.plays():
        wrong = problems(play.config)
        if wrong:
            yield play.what, wrong
        else:
            sound.append(play)
    while sound:  # a rank that failed ends all: those that are left get new ones
        try:
            with staged([play.config for play in sound], say, script.built()) as stage:
                while sound:
                    play = sound.pop(0)
                    lines, ended = tried(stage, play)
                    yield play.what, lines
                    if ended:
                        break
        except RoleError as error:
            yield "building the roles", [str(error.failure)]
            return


def tried(stage: SharedRoles, play: Scenario) -> tuple[list[str], bool]:
    """Return the promises that two steps do not keep, and whether the ranks have ended over it."""
    lines: dict[str, None] = {}

    def take_steps() -> None:
        for line in _steps(stage, play):
            lines[line] = None

    for act in (take_steps, stage.running.supervisor.wait_all):  # what is under way is still this play's
        try:
            act()
        except RoleError as error:
            return [*lines, str(error.failure)], True
        except HybridFlowError as error:
            lines[str(error)] = None
        except (Exception, SystemExit) as error:
            lines[described(error)] = None
    return list(lines), False


def _steps(stage: SharedRoles, play: Scenario) -> Iterator[str]:
    algorithm = stage.algorithm(play.config)
    measured = []
    for number in range(STEPS):
        rollout, metrics = stage.step(algorithm, number)
        measured.append(metrics)
        yield from not_finite(metrics, rollout.get())
        for column in play.algorithm.columns:
            if column not in rollout.columns:
                yield f"column missing: it declares {column!r} among its columns, and its rows have none"
    yield from unlearnt(play, measured, rollout)


def not_finite(metrics: dict[str, float], rows: Batch) -> Iterator[str]:
    """Metrics and columns that are not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            yield f"not finite: the metric {name} is {value}"
    for name in rows.columns:
        values = values_of(rows[name])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"not finite: the column {name!r} has {float(values[~np.isfinite(values)][0])}"


def unlearnt(play: Scenario, measured: list[dict[str, float]], rollout: BatchRef) -> Iterator[str]:
    """Roles that should learn, and took no optimiser step or none with a gradient."""
    for role in play.algorithm.roles_of(play.config.algorithm):
        if not issubclass(roles.get(role), TrainedRole):
            continue
        norms = [metrics[f"{role}/grad_norm"] for metrics in measured if f"{role}/grad_norm" in metrics]
        if not norms:
            yield f"{role} takes no optimiser step: does step call one of its update_ methods?"
        elif not any(norms):
            yield f"gradient does not flow: {role}/grad_norm is 0 in each of {STEPS} steps{_why(rollout)}"


def _why(rollout: BatchRef) -> str:
    known: Any = rollout.select_columns(["rewards", "advantages"]).get()
    for name in ("rewards", "advantages"):
        if name in known:
            values = values_of(known[name])
            if len(values) and (values == values[0]).all():
                return f"; all {name} are {float(values[0])}"
    return ""
