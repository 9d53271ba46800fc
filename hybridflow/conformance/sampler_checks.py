"""Samplers as functions: ranks that order any finished prompts, and the same ones again."""

from __future__ import annotations

from copy import deepcopy

from hybridflow.conformance.expectations import ExpectationError, describe_error, expect, expect_again
from hybridflow.scheduling import SchedulePolicy
from hybridflow.scheduling.rollout_state import Rollout
from hybridflow.scheduling.samplers import Sampler

POLICY = SchedulePolicy(prompts_per_step=2, max_staleness=1)
FINISHED = [
    Rollout(prompt, version, version + 1, finished=finished)
    for prompt, version, finished in ((0, 0, 3), (1, 0, 0), (3, 1, 1), (4, 1, 2))
]


def try_sampler(kind: type[Sampler]) -> None:
    """Expect ranks that can be compared, a window of prompts, and prompts that are left as they are."""
    sampler = kind()
    window = sampler.window(POLICY)
    expect(isinstance(window, int) and window >= 0, f"its window is {window!r}; a number of prompts was expected")
    given = deepcopy(FINISHED)
    ranks, again = ([sampler.rank(rollout) for rollout in given] for _ in range(2))
    expect(given == FINISHED, "`rank` changes the prompt that it is given, which is the scheduler's own")
    for rank in ranks:
        expect(isinstance(rank, tuple), f"`rank` gave a {type(rank).__name__}; a tuple of numbers was expected")
    try:
        sorted(ranks)
    except TypeError as error:
        raise ExpectationError(f"its ranks cannot be compared: {describe_error(error)}") from error
    expect_again("", ranks, again)
