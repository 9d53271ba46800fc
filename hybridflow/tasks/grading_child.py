"""Process that grades for one rank: `python -m hybridflow.tasks.grading_child CHANNEL PLACE LIFELINE`. No torch.

It is told its graders once, then rows, batch by batch. Its rank must know at which row it was if it hangs or dies: so
of rows that are graded at the same time it says at once which have started and what came of them; of those that are
graded one by one the number of the next stands in a few bytes of shared memory, and their grades are sent together,
those of some milliseconds (a message a row costs more than most grades).

`child_main` has what all processes beside a rank have in common.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from hybridflow.process_memory import peak_bytes
from hybridflow.tasks.child_main import FAULTS, described, find, serve
from hybridflow.tasks.graded_row import GradedRow
from hybridflow.tasks.grader_registry import BoundGrader, bind, graders
from hybridflow.tasks.grading_channel import Channel, Place, from_wire
from hybridflow.tasks.sound_grades import UnsoundGradeError, one_each, sound_grade

TOGETHER_S = 0.005  # so long grades of rows that come one by one wait for others
RAISED = "raised"
NO_NUMBER = "no number"
UNSOUND = "unsound"


def main() -> None:
    """Serve a rank."""
    serve(lambda channel, place, told: GradingServer(channel, place, told).run)


class GradingServer:
    """Graders of a rank, ready to be called.

    Args:
        told: `plugins`, `graders` as (name, module, options), `concurrency` and `deadline_s`.
    """

    def __init__(self, channel: Channel, place: Place, told: Mapping[str, Any]) -> None:
        self._channel = channel
        self._place = place
        self._pid = os.getpid()
        self._graders = [found(name, module, options, told["plugins"]) for name, module, options in told["graders"]]
        self._deadline_s: float = told["deadline_s"]
        self._concurrency: int = told["concurrency"]
        self._loop = asyncio.new_event_loop()  # one for all batches: what a grader keeps open stays usable

    def run(self) -> None:
        """Grade whatever the rank asks for. Raises EOFError once it has closed its end."""
        while True:
            self.grade(self._channel.receive())

    def grade(self, request: Mapping[str, Any]) -> None:
        """Grade the rows of a request, and say what came of each."""
        grader = self._graders[request["grader"]]
        rows = [from_wire(fields) for fields in request["rows"]]
        stop = bool(request["stop"])
        if grader.batched:
            self._batch(grader, rows, stop)
        elif grader.concurrent:
            self._loop.run_until_complete(self._at_the_same_time(grader, rows, stop, self._concurrency))
        else:
            self._one_by_one(grader, rows, stop)
        self._channel.send([["end", peak_bytes()]])

    def _one_by_one(self, grader: BoundGrader, rows: Sequence[GradedRow], stop: bool) -> None:
        messages: list[list[Any]] = []
        sent = monotonic()
        for number, row in enumerate(rows):
            self._place.set(number)
            try:
                (given,) = one_each(grader.grade_rows([row]), [row])
                message = checked(grader, number, row, given)
            except FAULTS as error:
                message = ["failed", number, *told_of(error)]
            if os.getpid() != self._pid:  # a grader that forked comes back twice
                os._exit(1)
            messages.append(message)
            if monotonic() - sent > TOGETHER_S:
                self._channel.send(messages)
                messages = []
                sent = monotonic()
            if stop and message[0] == "failed":
                break
        self._channel.send(messages)

    async def _at_the_same_time(
        self, grader: BoundGrader, rows: Sequence[GradedRow], stop: bool, concurrency: int
    ) -> None:
        """Grade so many rows at once; each has its deadline from where it starts."""
        waiting = iter(enumerate(rows))
        failed = asyncio.Event()

        async def work() -> None:
            for number, row in waiting:
                if stop and failed.is_set():
                    return
                self._channel.send([["started", number]])
                message = await self._awaited(grader, number, row)
                self._channel.send([message])
                if message[0] != "done":
                    failed.set()

        await asyncio.gather(*(work() for _ in range(min(concurrency, len(rows)))))

    async def _awaited(self, grader: BoundGrader, number: int, row: GradedRow) -> list[Any]:
        limit = asyncio.timeout(self._deadline_s)
        try:
            async with limit:
                (given,) = one_each(await _result(grader, [row]), [row])
            return checked(grader, number, row, given)
        except FAULTS as error:
            return ["late", number] if limit.expired() else ["failed", number, *told_of(error)]

    def _batch(self, grader: BoundGrader, rows: Sequence[GradedRow], stop: bool) -> None:
        """Grade all rows in one call; if that fails, each by itself: one row is no reason to lose the others."""
        try:
            whole = self._loop.run_until_complete(self._together(grader, rows)) if grader.concurrent else None
            given = one_each(grader.grade_rows(list(rows)) if whole is None else whole, rows)
        except UnsoundGradeError as error:  # it does not know what a batch is: no row by itself would be graded better
            self._channel.send([["failed", number, *told_of(error)] for number in range(len(rows))])
        except FAULTS:
            if grader.concurrent:
                self._loop.run_until_complete(self._at_the_same_time(grader, rows, stop, 1))
            else:
                self._one_by_one(grader, rows, stop)
        else:
            pairs = enumerate(zip(rows, given, strict=True))
            self._channel.send([checked(grader, number, row, grade) for number, (row, grade) in pairs])

    async def _together(self, grader: BoundGrader, rows: Sequence[GradedRow]) -> Any:
        async with asyncio.timeout(self._deadline_s * len(rows)):
            return await _result(grader, rows)


async def _result(grader: BoundGrader, rows: Sequence[GradedRow]) -> Any:
    given = grader.grade_rows(list(rows))
    return await given if inspect.isawaitable(given) else given


def found(name: str, module: str, options: Mapping[str, Any], plugins: list[str]) -> BoundGrader:
    """Find a grader, and bind it to its options."""
    find(graders, name, module, plugins)
    return bind(name, options)


def checked(grader: BoundGrader, number: int, row: GradedRow, given: object) -> list[Any]:
    """Return what to say of a grade."""
    try:
        grade = sound_grade(grader, row, given)
    except UnsoundGradeError as error:
        return ["failed", number, UNSOUND, str(error), ""]
    except ValueError as error:
        return ["failed", number, NO_NUMBER, str(error), ""]
    extras = [grade.parts, grade.token_rewards, grade.step_rewards]
    return ["done", number, grade.value, *(extras if any(extras) else [])]


def told_of(error: BaseException) -> tuple[str, str, str]:
    """Describe an exception: its kind, itself in one line, and its traceback."""
    if isinstance(error, UnsoundGradeError):
        return UNSOUND, str(error), ""
    return (RAISED, *described(error))


if __name__ == "__main__":
    main()
