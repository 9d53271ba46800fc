"""Words for who waits while large files are read."""

from __future__ import annotations

from time import monotonic

from hybridflow.observe import terminal

EVERY_S = 5.0


class ReadingProgress:
    """Says every few seconds how far something is; what takes less is not spoken of."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._next = monotonic() + EVERY_S

    def at(self, done: int) -> None:
        """Take note of how much is done."""
        now = monotonic()
        if now >= self._next:
            self._next = now + EVERY_S
            terminal.complain(terminal.one_line(f"{self._what}: {done / max(self._total, 1):.0%} of {self._total:,}"))
