"""Processes that environments run in, as their rank sees them: told what the policy said, asked what has been answered.

A conversation stays in one process. One whose process dies, or hangs, has failed, and so have all others there: what
they had come to is lost. A process in which a step was late takes up no other conversations, as something of that
step may run there still; it ends with the last of those that it has. While another starts in its place, what that one
is to be told waits, and conversations in other processes go on.
"""

from __future__ import annotations

import math
import select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from hybridflow.environments.environment import Action, Observation, Question, environments
from hybridflow.tasks.child_process import ChildProcess, where_modules_are

READ_S = 1e-4  # to find that there is no whole message
GRACE_S = 10.0  # beyond the deadline, for a process to tell itself that a step was late
HANGS = "one of its environments let no other go on"


@dataclass(frozen=True)
class EnvironmentOrder:
    """Environment that a run has, as the settings name it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str] = ()
    deadline_s: float = 60.0
    processes: int = 1

    def message(self) -> dict[str, Any]:
        """Return it as a process is told it."""
        module = getattr(environments.get(self.name), "__module__", None) or ""
        return {
            **where_modules_are(),
            "plugins": list(self.plugins),
            "environment": [self.name, module, dict(self.options)],
            "deadline_s": self.deadline_s,
        }


@dataclass(frozen=True)
class Failure:
    """Failure of an environment.

    Attributes:
        kind: `raised`; `late`, it gave no answer within its deadline; or `lost`, with its process.
        problem: in words.
        trace: its own traceback, if it raised.
    """

    kind: str
    problem: str = ""
    trace: str = ""


class EnvironmentPool:
    """Processes with the environments of a rank's conversations, which are numbered by whoever has them."""

    def __init__(self, order: EnvironmentOrder) -> None:
        self._order = order
        self._children: list[_Child] = []
        self._next: list[_Child | None] = [None] * order.processes  # by place, the one that takes up conversations
        self._of: dict[int, _Child] = {}
        for place in range(order.processes):
            self._starting(place)  # its imports take their time

    def reset(self, number: int, question: Question) -> None:
        """Begin a conversation.

        Raises HybridFlowError if its process cannot be started; if others are under way, a later `poll` does.
        """
        child = self._starting(number % self._order.processes)
        if not self._of:
            child.wait_until_ready()
        self._of[number] = child
        child.begun[number] = monotonic()
        child.tell(["reset", number, *vars(question).values()], self._order.deadline_s)

    def step(self, number: int, action: Action) -> None:
        """Let an environment answer a turn, which a later `poll` gives. One whose process is gone has failed."""
        child = self._of[number]
        first_until = child.begun[number] + self._order.deadline_s  # a step waits for what came before it
        child.waiting[number] = max(monotonic(), first_until if not action.turn else 0.0)
        child.tell(["step", number, *vars(action).values()], self._order.deadline_s)

    def finish(self, number: int) -> None:
        """End a conversation, and forget it."""
        child = self._of.pop(number)
        child.begun.pop(number)
        child.waiting.pop(number, None)
        child.tell(["close", number], self._order.deadline_s)
        if not child.begun and child.retired:
            self._remove(child)

    def poll(self, timeout_s: float) -> list[tuple[int, Observation | Failure]]:
        """Return what has been answered, by the conversations' numbers; wait for the first answer so long at most.

        Raises HybridFlowError if a process cannot be started.
        """
        until = monotonic() + timeout_s
        while True:
            found = [answer for child in list(self._children) for answer in self._heard(child)]
            asked = [child for child in self._children if child.waiting]
            left = min([until, *(child.late_at(self._order.deadline_s) for child in asked)]) - monotonic()
            if found or not asked or until <= monotonic():
                return sorted(found, key=lambda pair: pair[0])
            poller = select.poll()
            for child in asked:
                poller.register(child.channel.fileno(), select.POLLIN)
            poller.poll(max(left, 0.0) * 1000 + 1)

    def close(self) -> None:
        """End all processes."""
        for child in list(self._children):
            self._remove(child)
        self._of.clear()

    def _starting(self, place: int) -> _Child:
        child = self._next[place]
        if child is not None and not child.begun and child.has_died:  # between two calls: nothing is lost with it
            self._remove(child)
            child = None
        if child is None:
            child = self._next[place] = _Child(self._order)
            self._children.append(child)
        return child

    def _heard(self, child: _Child) -> list[tuple[int, Observation | Failure]]:
        """Return what a process has answered; of one that is gone, or has hung, that its conversations are lost."""
        if child.gone:
            return self._lost(child, child.gone)
        if not child.told(self._order.deadline_s):
            return []
        found: list[tuple[int, Observation | Failure]] = []
        while child.waiting:
            try:
                event, number, *told = child.channel.receive(READ_S)
            except TimeoutError:
                if monotonic() < child.late_at(self._order.deadline_s):
                    return found
                return [*found, *self._lost(child, HANGS)]
            except EOFError as error:
                return [*found, *self._lost(child, child.death(str(error)))]
            if event == "late":
                self._replace(child)
            if child.waiting.pop(number, None) is not None:
                found.append((number, _answer(event, told)))
        return found

    def _lost(self, child: _Child, why: str) -> list[tuple[int, Observation | Failure]]:
        """Give up a process. Those of its conversations that wait have failed; the others have as soon as they ask."""
        lost: list[tuple[int, Observation | Failure]] = [(one, Failure("lost", why)) for one in child.waiting]
        child.waiting.clear()
        child.gone = why
        self._replace(child)
        child.end()
        return lost

    def _replace(self, child: _Child) -> None:
        """Retire a process, and start at once those that take up conversations in its place."""
        places = [place for place, one in enumerate(self._next) if one is child]
        self._retire(child)
        for place in places:
            self._starting(place)

    def _retire(self, child: _Child) -> None:
        child.retired = True
        self._next = [None if one is child else one for one in self._next]

    def _remove(self, child: _Child) -> None:
        child.end()
        self._children.remove(child)
        self._retire(child)


class _Child(ChildProcess):
    """Process with environments.

    Attributes:
        begun: when each of its conversations began, by their numbers.
        waiting: since when each of those that wait for an answer does.
        retired: it takes up no more of them.
        gone: why there is no such process any more.
        unsent: what it is told once it is ready.
    """

    def __init__(self, order: EnvironmentOrder) -> None:
        what = ("that environments run in", f"environment {order.name!r}")
        super().__init__("hybridflow.environments.environment_child", what, order.message())
        self.begun: dict[int, float] = {}
        self.waiting: dict[int, float] = {}
        self.retired = False
        self.gone = ""
        self.unsent: list[list[Any]] = []

    def late_at(self, deadline_s: float) -> float:
        """Return when the process itself should have told that the oldest step is late."""
        return math.inf if self.unsent else min(self.waiting.values()) + deadline_s + GRACE_S

    def tell(self, message: list[Any], deadline_s: float) -> None:
        """Send a message, or keep it until the process is ready.

        That the process has died, or hangs, is told where it is asked for an answer.
        """
        if self.gone:
            return
        if self.unsent or not self.is_ready(READ_S):
            self.unsent.append(message)
            return
        try:
            self.channel.send(message, deadline_s + GRACE_S)
        except TimeoutError:  # it has a part of the message, and cannot be told another
            self.gone = HANGS
        except EOFError:
            pass

    def told(self, deadline_s: float) -> bool:
        """Send what waits for the process if it is ready, and tell whether nothing waits any more."""
        if self.unsent and self.is_ready(READ_S):
            messages, self.unsent = self.unsent, []
            now = monotonic()  # all that it has begins now, whose first answer has the deadline of two messages
            self.begun = dict.fromkeys(self.begun, now)
            self.waiting = dict.fromkeys(self.waiting, now + deadline_s)
            for message in messages:
                self.tell(message, deadline_s)
        return not self.unsent


def _answer(event: str, told: list[Any]) -> Observation | Failure:
    if event == "observed":
        messages, reward, done, metrics = told
        return Observation(messages, reward, done, metrics)
    return Failure("late") if event == "late" else Failure("raised", *told)
