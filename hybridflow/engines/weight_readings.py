"""Readings of a generation engine's weights, taken while and after they are updated, by which a refit is proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class WeightReadings:
    """What an engine computes with, by Hugging Face name.

    Attributes:
        fingerprint: of a weight's region, by its name and its numbers.
        found: the fingerprints; None where a region is not whole, or what the engine computes with is not what it was
            seen to hold.
        seconds: that readings took.
    """

    fingerprint: Callable[[str, Tensor], int | None]
    found: dict[str, int | None] = field(default_factory=dict)
    seconds: float = 0.0

    def read(self, name: str, region: Tensor) -> None:
        """Take the fingerprint of a weight's region as the engine has it; rows of padding may follow."""
        with self.timed():
            self.found[name] = self.fingerprint(name, region)

    def refuse(self, name: str) -> None:
        """Record that what the engine computes with differs from what was read of this weight."""
        self.found[name] = None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of a reading."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds += perf_counter() - start
