"""Two steps of every scenario on ranks, with real engines, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.columns import values_of
from hybridflow.bounded_code import at_most
from hybridflow.config.schema import Config
from hybridflow.conformance.expectations import Results, describe_error
from hybridflow.conformance.scenarios import Scenario, ScenarioBuilder
from hybridflow.conformance.shared_roles import PLUGIN, SharedRoles, start_shared_roles
from hybridflow.dispatch import unknown_protocols
from hybridflow.errors import HybridFlowError
from hybridflow.registry import import_plugins
from hybridflow.roles import TrainedRole, roles
from hybridflow.runtime.failure import RoleError

STEPS = 2
STEPS_S = 240.0  # that they may take together


def results(builder: ScenarioBuilder, problems: Callable[[Config], list[str]], say: Callable[[str], None]) -> Results:
    """Yield for each scenario the expectations that it violates.

    Args:
        problems: what is wrong with settings before anything starts; a scenario that has any is not started.
        say: is told what is being started.
    """
    import_plugins([PLUGIN])
    if unheard := {role: wrong for role in builder.extra_roles() if (wrong := [*unknown_protocols(roles.get(role))])}:
        yield from ((f"role {role!r}", wrong) for role, wrong in unheard.items())
        return  # each start builds all of these roles
    sound: list[Scenario] = []
    for scenario in builder.scenarios():
        wrong = problems(scenario.config)
        if wrong:
            yield scenario.what, wrong
        else:
            sound.append(scenario)
    while sound:  # a rank that failed ends all: those that are left get new ones
        try:
            with start_shared_roles([scenario.config for scenario in sound], say, builder.extra_roles()) as shared:
                while sound:
                    scenario = sound.pop(0)
                    lines, ended = take_steps_of(shared, scenario)
                    yield scenario.what, lines
                    if ended:
                        break
        except RoleError as error:
            yield "building the roles", [str(error.failure)]
            return


def take_steps_of(shared: SharedRoles, scenario: Scenario) -> tuple[list[str], bool]:
    """Return the expectations that two steps violate, and whether the ranks have ended over it."""
    lines: dict[str, None] = {}

    def take_steps() -> None:
        with at_most(STEPS_S):  # calls on ranks have deadlines of their own, and a flow that calls none has not
            for line in _steps(shared, scenario):
                lines[line] = None

    for act in (take_steps, shared.running.supervisor.wait_all):  # what is under way is still this scenario's
        try:
            act()
        except RoleError as error:
            return [*lines, str(error.failure)], True
        except HybridFlowError as error:
            lines[str(error)] = None
        except (Exception, SystemExit) as error:
            lines[describe_error(error)] = None
    return list(lines), False


def _steps(shared: SharedRoles, scenario: Scenario) -> Iterator[str]:
    algorithm = shared.algorithm(scenario.config)
    measured = []
    for number in range(STEPS):
        rollout, metrics = shared.step(algorithm, number)
        measured.append(metrics)
        yield from not_finite(metrics, rollout.get())
        for column in scenario.algorithm.columns:
            if column not in rollout.columns:
                yield f"column missing: it declares {column!r} among its columns, and its rows have none"
    yield from unlearned(scenario, measured, rollout)


def not_finite(metrics: dict[str, float], rows: Batch) -> Iterator[str]:
    """Metrics and columns that are not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            yield f"not finite: the metric {name} is {value}"
    for name in rows.columns:
        values = values_of(rows[name])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"not finite: the column {name!r} has {float(values[~np.isfinite(values)][0])}"


def unlearned(scenario: Scenario, measured: list[dict[str, float]], rollout: BatchRef) -> Iterator[str]:
    """Roles that should learn, and took no optimizer step or none with a gradient."""
    for role in scenario.algorithm.roles_of(scenario.config.algorithm):
        if not issubclass(roles.get(role), TrainedRole):
            continue
        norms = [metrics[f"{role}/grad_norm"] for metrics in measured if f"{role}/grad_norm" in metrics]
        if not norms:
            yield f"{role} takes no optimizer step: does step call one of its update_ methods?"
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
