"""StepContext: one step as its algorithm knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hybridflow.batch import BatchRef
from hybridflow.errors import HybridFlowError


def no_prompts() -> BatchRef:
    """Stand in for `next_prompts` where no run gives any. Raises HybridFlowError."""
    raise HybridFlowError(
        "next_prompts was asked for outside of a step: call begin_step(StepContext(step_index, next_prompts)) first, "
        "as a schedule does"
    )


@dataclass
class StepContext:
    """Step of a run, handed to the algorithm before its first call.

    Attributes:
        step_index: the number of the step, from 0.
        next_prompts: draws as many new prompts as a step begins with, others at each call.
        kept: the rows that the step has chosen to learn from, counted; None until it has.
    """

    step_index: int = 0
    next_prompts: Callable[[], BatchRef] = no_prompts
    kept: int | None = None
