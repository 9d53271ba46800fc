"""SimulatedOutcome: what came of a simulated run."""

from __future__ import annotations

from dataclasses import dataclass, field

from hybridflow.planning.estimates import Span
from hybridflow.scheduling import SchedulePolicy


@dataclass
class SimulatedOutcome:
    """Outcome of a simulated run.

    Attributes:
        trained: (step, prompt, versions that its oldest weights were behind the step's), in the order of learning.
        dropped: prompts that were learned from in no step.
        max_in_flight: prompts begun and not learned from at once.
        tokens: that were generated in slots, also what was stopped.
        busy: slot-seconds of generation on its own device.
        lent: those on the learner's.
        learning_s: seconds of the jobs of learning.
        ended: when each step had been learned from.
        spans: of jobs, of weight syncs, and of generation in slots without a pause.
    """

    seconds: float = 0.0
    trained: list[tuple[int, int, int]] = field(default_factory=list)
    dropped: tuple[int, ...] = ()
    max_in_flight: int = 0
    tokens: float = 0.0
    busy: float = 0.0
    lent: float = 0.0
    learning_s: float = 0.0
    ended: list[float] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def keeps(self, policy: SchedulePolicy, prompts: int) -> bool:
        """Tell whether every prompt was learned from once or dropped, and nothing is beyond the bounds."""
        once = sorted([prompt for _, prompt, _ in self.trained] + [*self.dropped]) == list(range(prompts))
        within = all(behind <= policy.max_staleness for _, _, behind in self.trained)
        return once and within and self.max_in_flight <= policy.max_in_flight
