"""How `make test` shares tests out to its processes: those that share ranks, a cluster or whole runs stay together.

Each process of pytest-xdist has session fixtures of its own; two of them would start the same ranks twice. All other
tests go out by the file, as a process has nothing left to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

try:
    from xdist.scheduler import LoadScopeScheduling
except ImportError:  # `pytest` alone, as on GPUs, needs no xdist
    LoadScopeScheduling = object

WHOLE_RUNS = (
    "checkpoints",
    "conversation_runs",
    "durable_rollouts",
    "endings",
    "lent_slots",
    "over_sampling",
    "overlapping_runs",
    "placements",
    "reward_model",
    "rlhf",
    "runs",
    "second_engine",
)
UNITS = {
    "whole runs": tuple(f"tests/trainer/test_{name}.py" for name in WHOLE_RUNS),
    "ranks": ("tests/engines/", "tests/parallel/", "tests/resharding/", "tests/workers/", "tests/test_spmd.py"),
    "cluster": ("tests/controller/",),
}
# The longest first: what is started last should be short.
LONGEST = (
    *UNITS,
    "tests/docs/test_tutorial.py",
    "tests/trainer/test_flows.py",
    "tests/conformance/test_flow_checks.py",
    *(f"tests/docs/test_{name}.py" for name in ("extend", "conversations", "distillation")),
    "tests/trainer/test_disaggregated.py",
)
# A test that asks for one of these fixtures must be in that unit.
SHARED = {"launch": "whole runs", "ranks": "ranks"}


def unit_of(nodeid: str) -> str:
    """The tests that this one runs with: a unit's name, or its file."""
    file = nodeid.split("::")[0]
    return next((name for name, places in UNITS.items() if file.startswith(places)), file)


def left_out(expression: str) -> list[str]:
    """The marks that `-m "not this and not that"` is without."""
    return re.findall(r"not (\w+)", expression) if re.fullmatch(r"not \w+( and not \w+)*", expression) else []


def unwanted(file: Path, expression: str) -> bool:
    """Tell whether all tests of a file have a mark that `-m` is without."""
    if file.suffix != ".py" or not (names := left_out(expression)):
        return False
    marks = "".join(re.findall(r"^pytestmark = .*(?:\n[ \])].*)*", file.read_text("utf-8"), re.MULTILINE))
    return bool({f"pytest.mark.{name}" for name in names}.intersection(re.split(r"[^\w.]", marks)))


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of units and files that take long before all others."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(unit_of(item.nodeid), len(order)))


def misplaced(items: Sequence[pytest.Item]) -> list[str]:
    """Tests that would start for themselves what a unit shares."""
    return [
        f"{item.nodeid} asks for `{name}`, so its file belongs to the unit {unit!r} of tests/units.py"
        for item in items
        for name, unit in SHARED.items()
        if name in getattr(item, "fixturenames", ()) and unit_of(item.nodeid) != unit
    ]


class ByUnit(LoadScopeScheduling):  # type: ignore[misc, valid-type]
    """Gives a process one unit after the other, in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
