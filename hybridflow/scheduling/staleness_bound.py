"""The bound on staleness, kept by pacing: what may be admitted, and what must be learned from now.

Step k learns from P prompts with weights of version k. A prompt that is admitted while generation has version a is
*due* at step a + S: learned from there or earlier, none of its tokens is more than S versions old. At step k, of which
t prompts are taken, let N(j) count the prompts in flight, not taken, that are due by step j, and let C(j) =
(j - k + 1)·P - t be the seats through step j. All that is done keeps

    N(j) ≤ C(j)   for every j ≥ k.        (1)

* *Admit* at version g: versions never fall, so all in flight is due by g + S. `room` admits no more than C(g + S), so
  (1) holds for j ≥ g + S, and for smaller j nothing changes.
* *Take* b prompts: C(j) falls by b. `choose` takes at least N(j) - C(j) + b of those due by j, so (1) holds again.
* *The step ends* with t = P: C(j) of step k + 1 is what it was, so (1) holds. And N(k) ≤ C(k) = 0: all that was due by
  step k has been learned from.
* *A row is lost*: its prompt keeps its place and its due step; the new tokens are younger than they must be.

So no token is learned from beyond the bound, and nothing is discarded for it. In flight, with what is taken, is at most
(g + S - k + 1)·P ≤ (S + 1)·P. And there is always a choice once all in flight is finished: by (1) at most b prompts are
owed for any j, and those owed for j count for every later one. So the learner waits for unfinished rows only, and no
sampler can break the bound or stop the run.

Pacing instead of discarding: AReaL (arXiv 2505.24298, section 5.1) bounds admissions by versions; Tinker's cookbook
(pull request 822) measures what discarding costs: slow prompts are begun again and again. A budget alone does not bound
the age of one slow prompt that others overtake; what `choose` owes does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hybridflow.scheduling.rollout_state import Rollout, SchedulerState
from hybridflow.scheduling.schedule_policy import SchedulePolicy


def room(policy: SchedulePolicy, state: SchedulerState) -> int:
    """Return how many more prompts may be admitted with the weights that generation has; spare ones do not count."""
    versions = state.version + policy.max_staleness - state.step + 1
    return versions * policy.prompts_per_step - len(state.rollouts)


def owed(policy: SchedulePolicy, step: int, taken: int, size: int, waiting: Iterable[Rollout]) -> dict[int, int]:
    """Return by due step how many of those due by then must be among the next `size` that are taken.

    Args:
        taken: prompts of the step that are.
        waiting: all in flight that are not.
    """
    by_due = Counter(rollout.due for rollout in waiting)
    debts: dict[int, int] = {}
    count = 0
    for due in sorted(by_due):
        count += by_due[due]
        seats = (due - step + 1) * policy.prompts_per_step - taken
        debts[due] = max(0, count - seats + size)
    return debts


def choose(ranked: Sequence[Rollout], size: int, debts: Mapping[int, int]) -> list[Rollout] | None:
    """Return the first `size` of these that pay all debts; None if these cannot.

    Going down the ranking, one is passed over only if what remains to be chosen is all owed to earlier due steps.
    """
    left = dict(debts)
    chosen: list[Rollout] = []
    for rollout in ranked:
        seats = size - len(chosen)
        if not seats:
            break
        if any(debt >= seats for due, debt in left.items() if due < rollout.due):
            continue
        chosen.append(rollout)
        for due in left:
            left[due] -= due >= rollout.due
    return chosen if len(chosen) == size and all(debt <= 0 for debt in left.values()) else None
