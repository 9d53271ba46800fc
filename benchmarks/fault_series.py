"""Rows of `benchmarks.faults` that are made together, since they share a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.fault_runs import Ended, Result, Row, Runs
from tests.forked_ranks import command


@dataclass
class Series:
    """Rows that are made together, in one or a few runs.

    Attributes:
        make: gives the results by name.
    """

    names: Sequence[str]
    make: Callable[[Runs], dict[str, Result]]
    _made: dict[Path, dict[str, Result]] = field(default_factory=dict)

    def rows(self) -> tuple[Row, ...]:
        """Return the rows."""
        return tuple(Row(name, partial(self._result, name)) for name in self.names)

    def _result(self, name: str, runs: Runs) -> Result:
        if runs.place not in self._made:
            self._made[runs.place] = self.make(runs)
        return self._made[runs.place][name]


def again(runs: Runs, name: str, settings: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Make a run, or let it go on. Its driver is forked as its ranks are, for there are many of these."""
    program = command("-m", "hybridflow", environment=runs.forks)
    return runs.run(name, "colocated", more=settings, environment=environment, program=program)
