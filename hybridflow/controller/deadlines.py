"""Deadlines of calls, and when to speak of one that is waited for. Pure: who asks brings the time."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from math import inf

SAY_AFTER_S = 30.0  # that a call is waited for; of one that usually takes longer, three times as long as it took
LONGER_THAN_USUAL = 3.0
BETWEEN_LOOKS_S = 5.0  # that count at most: who waits looks once a second, unless the process is stopped or busy
BEFORE_THE_END = 0.5  # of a deadline: by then it has been said what is waited for


@dataclass(frozen=True)
class Deadlines:
    """Seconds that calls on a role may take.

    Attributes:
        default: of those that have none of their own.
        by_role: of those that do.
    """

    default: float = inf
    by_role: Mapping[str, float] = field(default_factory=dict)

    def of(self, role: str) -> tuple[float, str]:
        """Return the seconds of a call on a role, and the setting that says so."""
        if role in self.by_role:
            return self.by_role[role], f"trainer.call_timeouts_s.{role}"
        return self.default, "trainer.call_timeout_s"


@dataclass
class OldestCallClock:
    """Measures how long the oldest call under way has been that.

    All that it could wait for was called before it and has reported: its rows, and earlier calls on its ranks. So it
    has been at work for at least as long, and no time that it stood in a queue counts.
    Nor does time in which nobody looked: Ctrl-Z that stopped the driver may have stopped the ranks too.
    """

    call: Hashable = None
    seen: float = 0.0
    seconds: float = 0.0
    said_at: float = 0.0
    usual: dict[str, float] = field(default_factory=dict)

    def waited(self, call: Hashable, now: float) -> float:
        """Return the seconds that this call has been the oldest."""
        if call != self.call:
            self.call = call
            self.seen = now
            self.seconds = 0.0
            self.said_at = 0.0
        self.seconds += min(now - self.seen, BETWEEN_LOOKS_S)
        self.seen = now
        return self.seconds

    def note(self, name: str, seconds: float) -> None:
        """Remember how long a call of that name took, if no other took longer."""
        self.usual[name] = max(self.usual.get(name, 0.0), seconds)

    def time_to_say(self, name: str, waited: float, within: float) -> bool:
        """Tell whether to speak of the oldest call now: once it takes long, and then each time it has taken twice as
        long.
        """
        first = max(SAY_AFTER_S, LONGER_THAN_USUAL * self.usual.get(name, 0.0))
        due = min(first, within * BEFORE_THE_END) if not self.said_at else 2 * self.said_at
        if waited < due:
            return False
        self.said_at = waited
        return True
