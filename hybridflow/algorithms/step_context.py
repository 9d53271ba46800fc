"""StepContext: one step as its algorithm knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hybridflow.batch import BatchRef
from hybridflow.errors import HybridFlowError


def no_prompts() -> BatchRef:
    """Stand in for `next_prompts` where no run gives any. Raises HybridFlowError."""
    raise HybridFlowError(
        "next_prompts was asked for outside of a step: call begin_step(StepContext(step_index, next_prompts)) first, "
        "as a schedule does"
    )


def no_draw() -> int:
    """Stand in for `draw_ahead` where no run gives prompts. Raises HybridFlowError."""
    no_prompts()
    raise AssertionError


def no_step() -> None:
    """Stand in for `following` where no run says what comes next."""


@dataclass
class StepContext:
    """Step of a run, handed to the algorithm before its first call.

    Attributes:
        step_index: the number of the step, from 0.
        next_prompts: draws as many new prompts as a step begins with, others at each call.
        kept: the rows that the step has chosen to learn from, counted; None until it has.
        measured: what the flow has counted itself, by the name of its metric, for its `on_step_end`. It is not the
            algorithm's own: another step may begin before this one ends.
        logs_tokens: its rows are written out token by token, so what an update says of them is asked for.
        scored: rows with the `old_log_probs` that they were learned from by, which the flow's own rows do not have;
            only of a step that `logs_tokens`.
        in_parts: the flow has learned from other rows of this step, and is called again for these.
        steps_left: how many steps of the run come after it.
        draw_ahead: draws prompts that belong to no step yet, and gives the number of this draw. A schedule that calls
            it has in its `state` which of them are to be learned from still.
        draw: gives the prompts of a draw of that number, as often as it is asked.
        following: gives the context of the step after it; None after the last. A schedule that begins a step before the
            one before it has ended asks for it.
    """

    step_index: int = 0
    next_prompts: Callable[[], BatchRef] = no_prompts
    kept: int | None = None
    measured: dict[str, float] = field(default_factory=dict)
    logs_tokens: bool = False
    scored: list[BatchRef] = field(default_factory=list)
    in_parts: bool = False
    steps_left: int = 0
    draw_ahead: Callable[[], int] = no_draw
    draw: Callable[[int], BatchRef] = lambda _: no_prompts()
    following: Callable[[], StepContext | None] = no_step
