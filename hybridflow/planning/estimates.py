"""What planning says of a placement: seconds, memory and bytes, each by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Expected value, and between what it lies in nine of ten steps."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Span:
    """Time in which a call occupies its pool, in seconds from the step's begin."""

    pool: str
    role: str
    method: str
    begin: float
    end: float


@dataclass(frozen=True)
class StepEstimate:
    """Time of a step.

    Attributes:
        seconds: of a step, in the middle of a run.
        phases: of the calls, by `role.method`, and of `sync_weights`.
        spans: one step of the expected lengths, as a timeline.
        idle: seconds of a step in which a pool has nothing to do, by pool.
        tokens: prompt and response tokens of a step's rows.
    """

    seconds: Spread
    phases: Mapping[str, Spread]
    spans: tuple[Span, ...]
    idle: Mapping[str, float]
    tokens: float


@dataclass(frozen=True)
class SlotMemory:
    """Bytes of the fullest slot of a pool.

    Attributes:
        held: by `role: what` (weights, gradients, optimizer, master weights, …), in every phase.
        phases: by phase (`generate`, `actor.compute_log_prob`, …), what it has beside `held`, by what it is.
        device: bytes that a slot has; 0: not known.
    """

    pool: str
    held: Mapping[str, float]
    phases: Mapping[str, Mapping[str, float]]
    device: float = 0.0

    @property
    def peak(self) -> float:
        """Return the bytes of the phase that needs most."""
        return sum(self.held.values()) + max((sum(phase.values()) for phase in self.phases.values()), default=0.0)


@dataclass(frozen=True)
class StepBytes:
    """Bytes that a step moves between processes, of all ranks together, by what they are for."""

    weight_sync: Mapping[str, float]
    rows: Mapping[str, float]
