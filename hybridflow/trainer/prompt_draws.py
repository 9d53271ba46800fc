"""PromptDraws: the prompts of each step, also of one that begins before the step before it has ended."""

from __future__ import annotations

from collections.abc import Callable

from hybridflow.algorithms import StepContext
from hybridflow.batch import BatchRef
from hybridflow.errors import HybridFlowError
from hybridflow.trainer.progress import Progress


class PromptDraws:
    """Gives steps their contexts, which draw prompts.

    The data cursor, `Progress.draws`, counts the draws of steps that have ended. So a step that was begun ahead, and is
    lost with a failure or a restart, is given the very same prompts again: none is skipped.

    A schedule that draws ahead of any step keeps what is to be learned from in its own state; the cursor is then past
    all that was drawn.

    Args:
        draw: gives the prompts of draw 0, 1, 2, …
        steps: of the run.
    """

    def __init__(self, draw: Callable[[int], BatchRef], progress: Progress, steps: int) -> None:
        self._draw = draw
        self._progress = progress
        self._steps = steps
        self._next = progress.draws
        self._newest = -1
        self._ahead = False
        self._contexts: dict[int, StepContext] = {}
        self._drawn: dict[int, int] = {}
        self._prepared: dict[int, BatchRef] = {}

    def context(self, step: int) -> StepContext:
        """Return the context of a step: the same one as often as it is asked for."""
        if step not in self._contexts:
            self._drawn[step] = 0
            self._contexts[step] = StepContext(
                step,
                lambda: self._drawn_for(step),
                draw_ahead=self._drawn_ahead,
                draw=self._take,
                steps_left=max(0, self._steps - step - 1),
                following=lambda: self.context(step + 1) if step + 1 < self._steps else None,
            )
        return self._contexts[step]

    def end_step(self, step: int) -> None:
        """Take in that a step has ended: what it drew is not drawn again."""
        drawn = self._drawn.pop(step)
        self._progress.draws = self._next if self._ahead else self._progress.draws + drawn
        del self._contexts[step]

    def prepare(self, step: int) -> None:
        """Make the prompts ready that the step after this one will ask for first, unless it has begun, or none comes.

        Ranks are still at work on this step, so whoever asks for them then waits for no task.
        """
        if step == self._newest and step + 1 < self._steps:
            self._prepared = {self._next: self._draw(self._next)}

    def _take(self, number: int) -> BatchRef:
        prepared = self._prepared.pop(number, None)
        return self._draw(number) if prepared is None else prepared

    def _drawn_for(self, step: int) -> BatchRef:
        if step < self._newest and not self._ahead:
            raise HybridFlowError(
                f"step {step} draws prompts in `learn`, but step {self._newest} has drawn its own: draw all of them in "
                "`rollout`, or set trainer.schedule=sync"
            )
        self._newest = step
        self._drawn[step] += 1
        return self._take(self._next_number())

    def _drawn_ahead(self) -> int:
        self._ahead = True
        return self._next_number()

    def _next_number(self) -> int:
        number = self._next
        self._next += 1
        return number
