"""State machine of a run that goes on after failures. Pure: no Ray, no clock, no file.

    running --fail--> settling --settle--> rebuilding --rebuild--> restoring --restore--> running
    any of these --fail--> settling, or ended

What makes it right are the transitions that do not exist:

* none leaves `ended`, and a failure that is no INFRA, or one more than `max_failures` in a window, leads only there;
* none leads from `settling` to `restoring` or `running`: a rank that may still work on the interrupted step would write
  into the step that is made again. What cannot be settled is rebuilt;
* none leads to `running` but from `restoring`: a new process has no state yet, and a learner that is no longer what
  it was at the step's beginning must get it back;
* a failure while pools are rebuilt does not lead back to rebuilding the same ones: then all are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from hybridflow.runtime.failure import FailureKind


class Phase(StrEnum):
    """Where a run is between two failures."""

    running = "running"
    settling = "settling"  # ranks that live finish or give up what they were asked
    rebuilding = "rebuilding"  # lost pools are given new processes
    restoring = "restoring"  # learners and the driver go back to where the step is made again from
    ended = "ended"


@dataclass(frozen=True)
class Limits:
    """Bounds of going on.

    Attributes:
        max_failures: in a window, after which it goes on.
        window_s: seconds.
    """

    max_failures: int
    window_s: float


@dataclass(frozen=True)
class RecoveryState:
    """State of a run's recovery.

    Attributes:
        pools: all of them, by name.
        learners: those of them that a role which learns is on.
        lost: pools that must be given new processes.
        changed: a learner that lives may no longer be what it was when the step began.
        failures: when those of the last window happened, in seconds.
    """

    pools: frozenset[str]
    learners: frozenset[str]
    limits: Limits
    phase: Phase = Phase.running
    lost: frozenset[str] = frozenset()
    changed: bool = False
    failures: tuple[float, ...] = ()

    @property
    def must_reload(self) -> bool:
        """Tell whether learners get the state of a checkpoint; else they have that of the step's beginning."""
        return self.changed or bool(self.lost & self.learners)

    def fail(self, kind: FailureKind, now: float) -> RecoveryState:
        """Take in a failure, in whatever phase. Raises ValueError if the run has ended."""
        if self.phase is Phase.ended:
            raise ValueError("a run that has ended cannot fail")
        failures = (*(at for at in self.failures if now - at < self.limits.window_s), now)
        goes_on = kind is FailureKind.INFRA and len(failures) <= self.limits.max_failures
        return replace(
            self,
            phase=Phase.settling if goes_on else Phase.ended,
            lost=self.pools if self.phase is Phase.rebuilding else self.lost,
            # What was being restored is half restored.
            changed=self.changed or self.phase is Phase.restoring,
            failures=failures,
        )

    def settle(self, lost: Iterable[str], *, changed: bool, checkpoint: bool) -> RecoveryState:
        """Take in which pools have a rank that is dead, stopped or still at work.

        Args:
            changed: a learner may have been, by what ranks have carried out by now.
            checkpoint: whether there is one; else what learners go back to is the start, which new processes have.
        """
        self._expect(Phase.settling)
        state = replace(self, phase=Phase.rebuilding, lost=self.lost | frozenset(lost), changed=self.changed or changed)
        return state if checkpoint or not state.must_reload else replace(state, lost=state.lost | self.learners)

    def rebuild(self) -> RecoveryState:
        """Take in that every lost pool has new processes and its roles."""
        self._expect(Phase.rebuilding)
        return replace(self, phase=Phase.restoring)

    def restore(self) -> RecoveryState:
        """Take in that all is where the step is made again from."""
        self._expect(Phase.restoring)
        return replace(self, phase=Phase.running, lost=frozenset(), changed=False)

    def _expect(self, phase: Phase) -> None:
        if self.phase is not phase:
            raise ValueError(f"a run that is {self.phase.value} cannot do what follows {phase.value}")


UNCHANGING = frozenset(
    {
        "advance_rollouts", "compare", "compute_cost_values", "compute_log_prob", "compute_ref_log_prob",
        "compute_ref_pair", "compute_reward", "compute_values", "connect", "generate_sequences", "journal_rollouts",
        "log_rollouts", "receive_weights", "report_version", "rest_rollouts", "save_checkpoint", "save_model",
        "send_weights", "stream_sequences", "sync_weights",
    }
)  # fmt: skip
"""Methods that leave a learner as it was. Any other, of a user's too, may have changed it."""


def may_have_changed(called: Iterable[tuple[str, str]], learners: Iterable[str]) -> bool:
    """Tell whether one of these calls, each a role and a method, can have changed a role that learns."""
    names = frozenset(learners)
    return any(role in names and method not in UNCHANGING for role, method in called)
