"""Bars of a plan, on a terminal and in a drawing: memory by what holds it, and a step's calls along its time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hybridflow.planning.estimates import SlotMemory, Spread, StepEstimate

ALWAYS = "between calls"
SYNC = "sync_weights"


@dataclass(frozen=True)
class MemoryBar:
    """Memory of a slot in one phase.

    Attributes:
        parts: bytes by what they are, in the order in which they are drawn.
    """

    phase: str
    parts: Mapping[str, float]

    @property
    def bytes(self) -> float:
        """Return their sum."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class CallBar:
    """Calls of one method on one pool, along a step.

    Attributes:
        spans: begin and end of each, in seconds.
        spread: of their sum; None: not known.
    """

    pool: str
    name: str
    spans: tuple[tuple[float, float], ...]
    spread: Spread | None


def memory_bars(slot: SlotMemory) -> Iterator[MemoryBar]:
    """Yield what is held in every phase, then each phase with that and its own."""
    held: dict[str, float] = {}
    for name, size in slot.held.items():
        what = name.rpartition(": ")[2]
        held[what] = held.get(what, 0.0) + size
    yield MemoryBar(ALWAYS, held)
    for phase, parts in slot.phases.items():
        yield MemoryBar(phase, {**held, **{what: held.get(what, 0.0) + size for what, size in parts.items()}})


def with_tensors(memory: Sequence[SlotMemory]) -> list[SlotMemory]:
    """Leave out pools that have no models."""
    return [slot for slot in memory if slot.peak]


def kinds_of(memory: Sequence[SlotMemory]) -> list[str]:
    """List what memory is for, in the order of its first mention."""
    return list(dict.fromkeys(what for slot in memory for bar in memory_bars(slot) for what in bar.parts))


def memory_scale(memory: Sequence[SlotMemory]) -> float:
    """Return the bytes that a whole bar stands for."""
    return max([1.0, *(max(slot.device, slot.peak) for slot in memory)])


def call_bars(step: StepEstimate) -> list[CallBar]:
    """List the calls of a step, in the order in which they begin; those of one method on one pool together."""
    spans: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for span in sorted(step.spans, key=lambda span: (span.begin, span.end)):
        name = SYNC if span.method == SYNC else f"{span.role}.{span.method}"
        spans.setdefault((span.pool, name), []).append((span.begin, span.end))
    return [CallBar(pool, name, tuple(own), step.phases.get(name)) for (pool, name), own in spans.items()]


def step_end(step: StepEstimate) -> float:
    """Return the end of the last span, which may be later than that of a step: schedules let steps overlap."""
    return max([step.seconds.mean, *(span.end for span in step.spans)])


def size_text(size: float) -> str:
    """Write bytes for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            number = size / unit
            return f"{number:.1f} {name}" if number < 100 else f"{number:.0f} {name}"
    return f"{size:.0f} B"


def seconds_text(seconds: float) -> str:
    """Write seconds for people."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def spread_text(spread: Spread) -> str:
    """Write an expected time and between what it lies, in one unit."""
    unit, name = (1.0, "s") if spread.mean >= 1 else (1e-3, "ms")
    mean, low, high = (f"{seconds / unit:.3g}" for seconds in (spread.mean, spread.low, spread.high))
    return f"{mean} {name} ({low} to {high})"
