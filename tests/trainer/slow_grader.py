"""Plugin with a grader that is right as `exact` is, and takes its time."""

from __future__ import annotations

import time

from hybridflow.tasks import graders

GRADE_S = 0.01


@graders.register("slow_exact")
def slow_exact(response: str, answer: str) -> float:
    """Return 1 for the answer, after a while."""
    time.sleep(GRADE_S)
    return float(response == answer)
