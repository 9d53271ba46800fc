"""Process that grades for a rank, as the rank sees it: started once, given rows, replaced if it hangs or dies.

A row that passes its deadline, or at which the process dies, is a failed grade; the other rows of its batch are graded
still. Of rows that were graded at the same time nobody knows which it was: each is then graded by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from hybridflow.tasks.child_process import START_S, ChildProcess, where_modules_are
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import BoundGrader, graders
from hybridflow.tasks.grading_channel import Place, to_wire

log = logging.getLogger(__name__)

GRACE_S = 2.0  # beyond the deadline, for an `async` grader to be told of it in its own process


@dataclass(frozen=True)
class Outcome:
    """Outcome of a row: its grade, or why there is none.

    Attributes:
        kind: of the failure: `raised`, `no number`, `unsound`; or `late` or `died`.
        problem: in words.
        trace: the grader's own traceback, if it raised.
    """

    grade: Grade | None = None
    kind: str = ""
    problem: str = ""
    trace: str = ""


@dataclass(frozen=True)
class GradingOrder:
    """Graders that the process serves, and their options, as the settings have them."""

    chosen: Sequence[BoundGrader]
    options: Sequence[Mapping[str, Any]]
    plugins: Sequence[str] = ()
    deadline_s: float = 60.0
    concurrency: int = 16

    def message(self) -> dict[str, Any]:
        """Return it as the process is told it."""
        components = [graders.get(grader.name) for grader in self.chosen]
        modules = [getattr(component, "__module__", None) or "" for component in components]
        names = [grader.name for grader in self.chosen]
        return {
            **where_modules_are(),
            "plugins": list(self.plugins),
            "graders": list(zip(names, modules, self.options, strict=True)),
            "deadline_s": self.deadline_s,
            "concurrency": self.concurrency,
        }


class GradingProcess:
    """Process that grades, started when this is made and whenever it is needed again."""

    def __init__(self, order: GradingOrder) -> None:
        self._order = order
        self._child: _Child | None = _Child(order)

    def grade(self, number: int, rows: Sequence[GradedRow], *, stop: bool = False) -> list[Outcome | None]:
        """Grade rows with a grader, by its number in the order.

        Args:
            stop: end at the first failure; of the rows after it there is no outcome.

        Raises HybridFlowError if the process cannot be started.
        """
        round_ = _Round(self._order, number, rows)
        groups = [list(range(len(rows)))] if rows else []
        while groups and not (stop and round_.failed):
            group = groups.pop(0)
            if self._child is not None and self._child.has_died:  # between two calls: no row is to blame
                log.warning("the process that grades has ended while it had no rows: %s", self._child.death())
                self._child = None
            if self._child is None:
                self._child = _Child(self._order)
            at, why = self._child.serve(round_, group, stop)
            if why is None:
                continue
            self._child = None
            left = [row for row in group if round_.outcomes[row] is None]
            suspected = [row for row in at if row in left]
            if len(suspected) == 1:
                round_.outcomes[suspected[0]] = why
            else:
                groups += [[row] for row in suspected]
            rest = [row for row in left if row not in suspected]
            groups += [rest] if rest else []
        return round_.outcomes

    @property
    def memory_peak(self) -> int:
        """The most bytes that the process has had in memory; 0 if there is none."""
        return self._child.memory_peak if self._child is not None else 0

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
        self._child = None


@dataclass
class _Round:
    """Round of rows that one grader grades, with their outcomes so far."""

    order: GradingOrder
    number: int
    rows: Sequence[GradedRow]
    outcomes: list[Outcome | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outcomes = [None] * len(self.rows)

    @property
    def grader(self) -> BoundGrader:
        return self.order.chosen[self.number]

    @property
    def failed(self) -> bool:
        return any(outcome is not None and outcome.grade is None for outcome in self.outcomes)

    def request(self, group: Sequence[int], stop: bool) -> dict[str, Any]:
        whole = self.grader.reads_rows
        return {"grader": self.number, "rows": [to_wire(self.rows[row], whole) for row in group], "stop": stop}


class _Child(ChildProcess):
    """Process that grades, from its start to its end.

    Attributes:
        memory_peak: the most bytes that it has had in memory when it had last graded something.
    """

    def __init__(self, order: GradingOrder) -> None:
        self.memory_peak = 0
        super().__init__("hybridflow.tasks.grading_child", ("that grades", "the graders"), order.message())

    def serve(self, round_: _Round, group: Sequence[int], stop: bool) -> tuple[list[int], Outcome | None]:
        """Let it grade rows; return at which it was and why it is gone, or nothing if it has finished."""
        self.wait_until_ready()
        watch = _Watch(round_, group, self.place)
        self.place.set(0)
        try:
            self.channel.send(round_.request(group, stop), START_S)
            watch.begin()
            while True:
                for message in self.channel.receive(max(watch.ends_in(), 1e-6)):
                    if message[0] == "end":
                        self.memory_peak = message[1]
                        return [], None
                    watch.take_in(*message)
        except TimeoutError:
            self.end()
            return watch.at(), Outcome(kind="late")
        except EOFError as error:
            return watch.at(), Outcome(kind="died", problem=self.death(str(error)))


class _Watch:
    """Watch over a process: at which rows it is, and how long it may be there."""

    def __init__(self, round_: _Round, group: Sequence[int], place: Place) -> None:
        self._round = round_
        self._group = group
        self._place = place
        self._apart = not round_.grader.batched  # until a batch has failed, and its rows are graded each by itself
        self._started: dict[int, float] = {}
        self._since = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._since = monotonic()

    def take_in(self, event: str, place: int, *told: Any) -> None:
        """Take in what the process says of a row, by its place in the group."""
        self._since = monotonic()
        self._apart = True
        row = self._group[place]
        if event == "started":
            self._started[row] = self._since
            return
        self._started.pop(row, None)
        if event == "done":
            value, parts, tokens, steps = (*told, {}, [], [])[:4] if len(told) == 1 else told
            outcome = Outcome(Grade(value, parts, tokens, [tuple(step) for step in steps]))
        elif event == "late":
            outcome = Outcome(kind="late")
        else:
            outcome = Outcome(None, *told)
        self._round.outcomes[row] = outcome

    def ends_in(self) -> float:
        """Return the seconds that are left to the row whose deadline is next."""
        order = self._round.order
        grader = self._round.grader
        grace = GRACE_S if grader.concurrent else 0.0
        if not self._apart:
            return self._since + order.deadline_s * len(self._group) + grace - monotonic()
        since = min(self._started.values()) if self._started else self._since
        return since + order.deadline_s + grace - monotonic()

    def at(self) -> list[int]:
        """List the rows that it was at: those that had started, or the next of those that come one by one."""
        left = [row for row in self._group if self._round.outcomes[row] is None]
        place = self._place.get()
        if not self._started and (place >= len(self._group) or (not self._apart and not place)):
            return left  # nobody knows at which; a grader may have written there, too
        return list(self._started) or [self._group[place]]
