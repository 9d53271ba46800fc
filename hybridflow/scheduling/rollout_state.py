"""State of a scheduler, as plain data: the rollouts in flight, and how far the run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NO_WEIGHTS = -1


@dataclass
class Rollout:
    """One prompt that was begun and not learned from.

    Attributes:
        version: of the weights that it was first admitted with, which none of its tokens is older than.
        due: the last step that may learn from it.
        attempt: the newest of its rows.
        running: rows that are being generated, with their attempts.
        returned: rows that were lost and are to be generated again.
        finished: how many prompts had finished before it; None: it has not.
        taken: the learner has it.
        kept: it is not stopped before it has finished.
    """

    prompt: int
    version: int
    due: int
    attempt: int = 0
    running: dict[int, int] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)
    finished: int | None = None
    taken: bool = False
    kept: bool = False


@dataclass
class SchedulerState:
    """All that a scheduler knows.

    Attributes:
        step: steps that were learned from, which is the version of the learner's weights.
        version: of the weights that generation has; -1: it has none, or nobody knows.
        syncing: generation is being given weights.
        learning: the learner is at work.
        part: parts of the step that the learner has taken.
        next_prompt: the first that was never admitted.
        trained: prompts that were learned from.
        dropped: prompts that are learned from in no step.
        stopped: prompts that are to be generated anew, with the attempt that they begin with.
        finished: prompts that have finished so far, counted.
        rollouts: by prompt, in the order in which they were admitted.
    """

    step: int = 0
    version: int = NO_WEIGHTS
    syncing: bool = False
    learning: bool = False
    part: int = 0
    next_prompt: int = 0
    trained: int = 0
    dropped: list[int] = field(default_factory=list)
    stopped: dict[int, int] = field(default_factory=dict)
    finished: int = 0
    rollouts: dict[int, Rollout] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes: plain JSON, whose keys are strings."""
        data = asdict(self)
        data["stopped"] = list(self.stopped.items())
        data["rollouts"] = [
            {**asdict(rollout), "running": list(rollout.running.items())} for rollout in self.rollouts.values()
        ]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SchedulerState:
        """Return the state that was written. Raises KeyError or TypeError for what is none.

        States of earlier versions count the turns of conversations, which nothing depends on.
        """
        rollouts = [
            Rollout(**{**known, "running": dict(known["running"]), "returned": list(known["returned"])})
            for known in ({name: value for name, value in each.items() if name != "turns"} for each in data["rollouts"])
        ]
        more = {"stopped": dict(data["stopped"]), "rollouts": {rollout.prompt: rollout for rollout in rollouts}}
        return cls(**{**data, "dropped": list(data["dropped"]), **more})
