"""Stream: sync whose steps are learned from a minibatch at a time, each as soon as its prompts' rows have finished."""

from __future__ import annotations

from dataclasses import replace

from hybridflow.algorithms.schedule import schedules
from hybridflow.algorithms.step_context import StepContext
from hybridflow.batch import BatchRef
from hybridflow.batch.joining import concat
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.errors import HybridFlowError
from hybridflow.scheduling import Learned, Take
from hybridflow.trainer.schedules.paced_schedule import PacedSchedule


@schedules.register("stream")
class StreamSchedule(PacedSchedule):
    """Calls `rollout` and `learn` once for each minibatch, while the rows of later ones are under way.

    All rows of a step are sampled with the weights that it began with. To the flow a part is a whole step, of fewer
    prompts and one minibatch.
    """

    policy_name = "stream"
    in_parts = True

    def take_step(self, context: StepContext) -> BatchRef:
        own = replace(context, next_prompts=no_further_prompts)
        kept: list[int] = []
        parts: list[BatchRef] = []
        self._begin_step(context)
        self.algorithm.begin_step(own)
        taken = self._next_taken()
        while True:
            own.kept = None
            own.in_parts = bool(parts)
            parts.append(self._learn(taken))
            kept += [] if own.kept is None else [own.kept]
            if taken.last:
                break
            # The learner's calls run in the order in which they are made, so what has finished can be called for now.
            self._learning = False
            self._tell(Learned())
            taken = self._next_taken()
        context.kept = own.kept = sum(kept) if kept else None
        context.measured = own.measured
        context.scored = own.scored
        if OLD_LOG_PROBS not in parts[0].columns:  # the update of a step's first part scores it
            context.scored += [part for part in parts if OLD_LOG_PROBS in part.columns]
            parts = [part.select_columns({*part.columns} - {OLD_LOG_PROBS}) for part in parts]
        return concat(parts)

    def _learn(self, taken: Take) -> BatchRef:
        whole = self.algorithm.config
        self.algorithm.config = replace(whole, prompts_per_step=len(taken.prompts), minibatches=1)
        try:
            return super()._learn(taken)
        finally:
            self.algorithm.config = whole


def no_further_prompts() -> BatchRef:
    """Stand for `next_prompts`. Raises HybridFlowError."""
    raise HybridFlowError(
        "the flow draws further prompts, but trainer.schedule=stream gives it those of a minibatch at a time; take sync"
    )
