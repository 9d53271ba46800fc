"""What a scheduler is told (events), and what it answers (decisions).

A prompt is known by its place in the order in which the run draws them: 0, 1, 2, … A row is one of the
`samples_per_prompt` responses to it, 0, 1, …; its attempt counts how often its generation was begun before, so that
what an earlier attempt gives too late is not taken for the present one's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """The roles of the run are there."""


@dataclass(frozen=True)
class RowFinished:
    """A row has its last token, and its reward where the schedule waits for one."""

    prompt: int
    row: int
    attempt: int


@dataclass(frozen=True)
class RowFailed:
    """A row was lost with a process; it is generated again, the other rows of its prompt are not."""

    prompt: int
    row: int
    attempt: int


@dataclass(frozen=True)
class Learned:
    """The learner is done with what it took last."""


@dataclass(frozen=True)
class WeightsPublished:
    """Generation has the weights of this version: as many steps as they have learned from."""

    version: int


@dataclass(frozen=True)
class Resumed:
    """The run goes on after a failure, or from a checkpoint; learners are what they were when the step began.

    Attributes:
        lost: prompts whose finished rows are there no more.
    """

    lost: frozenset[int] = frozenset()


Event = Started | RowFinished | RowFailed | Learned | WeightsPublished | Resumed


@dataclass(frozen=True)
class Admit:
    """Generate these rows of a prompt with the weights that generation has.

    Attributes:
        rows: pairs (row, attempt).
    """

    prompt: int
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Take:
    """Give the rows of these prompts to the learner.

    Attributes:
        prompts: in the order of the run.
        step: that learns from them, whose weights are of this version.
        last: the step learns from no others after these.
    """

    prompts: tuple[int, ...]
    step: int
    last: bool


@dataclass(frozen=True)
class Sync:
    """Give generation the learner's weights.

    Attributes:
        version: of these.
        in_flight: rows are being generated, and go on with the new weights from a token boundary.
    """

    version: int
    in_flight: bool


@dataclass(frozen=True)
class Stop:
    """End the generation of these prompts' rows.

    Attributes:
        dropped: nothing will be learned from them; else they are generated anew in a later step.
    """

    prompts: tuple[int, ...]
    dropped: bool


Decision = Admit | Take | Sync | Stop
